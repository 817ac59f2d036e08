// The user at the browser: opens the workbench through the session's SOCKS port, edits, saves, reloads.
//
//   node workbench.js SOCKS_PORT URL SCREENSHOT
//
// Says on stdout what it has done, one word a line, and takes one line from stdin before it goes on: between
// two steps the journey looks at the file on the node, or cuts the connections.
const { chromium } = require(process.env.PLAYWRIGHT);
const readline = require("readline");

const [socksPort, url, screenshot] = process.argv.slice(2);
const MINUTE = 60_000;
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function done(step) {
    console.log(step);
    await lines.next();
}

async function opened(page) {
    await page.waitForSelector(".monaco-workbench", { timeout: MINUTE });
    // The explorer shows the folder's file once the remote file system answers.
    const file = page.locator(".explorer-folders-view .monaco-list-row", { hasText: "journey.txt" });
    await file.waitFor({ timeout: MINUTE });
    return file;
}

// The editor is open on the file; `text` goes in at its top, and is saved; whether it was, the file on the node tells.
async function edit(page, text) {
    const editor = page.locator(".editor-instance .monaco-editor").first();
    await editor.waitFor({ timeout: MINUTE });
    await editor.locator(".view-lines").click();
    await page.keyboard.press("Control+Home");
    await page.keyboard.type(text + "\n");
    await page.keyboard.press("Control+S");
}

async function main() {
    const browser = await chromium.launch({
        executablePath: "/usr/bin/chromium",
        args: [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            `--proxy-server=socks5://127.0.0.1:${socksPort}`, "--proxy-bypass-list=<-loopback>",
        ],
    });
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    // Asked at some time after the folder was opened, over everything else.
    await page.addLocatorHandler(page.getByRole("button", { name: /yes, i trust/i }), (button) => button.click());
    try {
        await page.goto(url, { timeout: MINUTE });
        let file = await opened(page);
        await file.dblclick();
        await edit(page, "first edit");
        await done("edited");

        await page.reload({ timeout: MINUTE });
        file = await opened(page);
        await file.dblclick();
        await edit(page, "after the reload");
        await done("reloaded");

        // The journey has cut every connection: VS Code comes back by itself, with new web sockets.
        await edit(page, "after the cut");
        await page.screenshot({ path: screenshot });
        await done("renewed");
    } catch (error) {
        await page.screenshot({ path: screenshot });
        throw error;
    } finally {
        await browser.close();
    }
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
