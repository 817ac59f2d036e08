// The user at the browser: opens the workbench through the session's SOCKS port, edits, saves, reloads.
//
//   node workbench.js SOCKS_PORT URL SCREENSHOT
//
// Says on stdout what it has done, one word a line, and takes one line from stdin before it goes on: between
// two steps the journey looks at the file on the node, or cuts the connections.
const { chromium, errors } = require(process.env.PLAYWRIGHT);
const readline = require("readline");

const [socksPort, url, screenshot] = process.argv.slice(2);
const MINUTE = 60_000;
const PATIENCE = 10_000; // with one try of several
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

// What the editor shows, and whether the file has it, as far as the editor knows.
function shows(wanted) {
    const lines = [...document.querySelectorAll(".editor-instance .view-line")]
        .sort((one, other) => parseInt(one.style.top) - parseInt(other.style.top))
        .map((line) => line.textContent.replaceAll("\u00a0", " "));
    return lines.join("\n") === wanted && !document.querySelector(".tab.active.dirty");
}

// The file's content becomes `text`, and is saved; whether it was, the file on the node tells.  A whole content is
// the same however often it is typed: VS Code may take the keyboard away in the midst of it, for a question or for
// an editor of its own.
async function edit(page, file, text) {
    const editor = page.locator(".editor-instance .monaco-editor").first();
    for (const end = Date.now() + MINUTE; ; ) {
        try {
            await file.dblclick({ timeout: PATIENCE });
            await editor.locator(".view-lines").click({ timeout: PATIENCE });
            await page.keyboard.press("Control+A");
            await page.keyboard.insertText(text);
            await page.keyboard.press("Control+S");
            return await page.waitForFunction(shows, text, { timeout: PATIENCE });
        } catch (error) {
            if (!(error instanceof errors.TimeoutError) || Date.now() > end) throw error;
            console.error(`typed in vain: ${error.message}`);
        }
    }
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
        await edit(page, await opened(page), "first edit\noriginal\n");
        await done("edited");

        await page.reload({ timeout: MINUTE });
        const file = await opened(page);
        await edit(page, file, "after the reload\nfirst edit\noriginal\n");
        await done("reloaded");

        // The journey has cut every connection: VS Code comes back by itself, with new web sockets.
        await edit(page, file, "after the cut\nafter the reload\nfirst edit\noriginal\n");
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
