//! Bootstrap scripts made up of recorded forms, varied as a script's author might vary them, among
//! the same text where it is data. Each part knows what has to become of it.

use super::inbound::run;
use arbitrary::{Result, Unstructured};
use bstr::ByteSlice;

use crate::intercept::Notice;

/// Stands for a loopback address that has to change.
const ADDRESS: char = '\u{1}';
/// Stands where an option has to be added.
const ADDITION: char = '\u{2}';

/// A script that `data` chooses is rewritten where, and only where, its parts say, in any slices.
pub fn check(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    let mut script = Script::default();
    let parts = 1 + data.len() / 16;
    for _ in 0..parts.min(64) {
        // What is left of the data when it runs out chooses the first of everything.
        if script.part(&mut choices).is_err() || choices.is_empty() {
            break;
        }
    }
    let step = data.first().map_or(1, |&byte| 1 + usize::from(byte));
    let input = script.input.as_bytes();
    for (name, got) in [("whole", run([input])), ("cut", run(input.chunks(step)))] {
        assert_eq!(
            got.0.as_bstr(),
            script.output.as_bytes().as_bstr(),
            "{name}"
        );
        assert_eq!(got.1, script.notices, "{name}: {}", script.input);
    }
}

#[derive(Default)]
struct Script {
    input: String,
    output: String,
    notices: Vec<Notice>,
}

impl Script {
    fn part(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        match choices.int_in_range(0..=5)? {
            0 | 1 => {
                let form = form(choices)?;
                let text = format!("{}{form}{}", before(choices)?, after(choices)?);
                self.add(choices, &text, Some(Notice::ServerStart))?;
            }
            2 => {
                let text = format!(
                    "{}{}{}",
                    before(choices)?,
                    tokenless(choices)?,
                    after(choices)?
                );
                self.add(
                    choices,
                    &text.replace(ADDITION, ""),
                    Some(Notice::WithoutToken),
                )?;
            }
            3 | 4 => {
                let text = data(choices)?;
                self.add(choices, &text, None)?;
            }
            _ => {
                let line = pick(choices, &LINES)?;
                self.add(choices, line, None)?;
            }
        }
        Ok(())
    }

    /// `text` with one loopback address or another in its places; they change only with a start.
    fn add(
        &mut self,
        choices: &mut Unstructured<'_>,
        text: &str,
        notice: Option<Notice>,
    ) -> Result<()> {
        let hosts = ["127.0.0.1", "127.0.0.1", "localhost", "[::1]", "::1"];
        let starts = notice == Some(Notice::ServerStart);
        for char in text.chars() {
            match char {
                ADDRESS => {
                    let host = choices.choose(&hosts)?;
                    self.input.push_str(host);
                    self.output.push_str(if starts { "0.0.0.0" } else { host });
                }
                ADDITION if starts => self.output.push_str(" --on-host=0.0.0.0"),
                ADDITION => {}
                other => {
                    self.input.push(other);
                    self.output.push(other);
                }
            }
        }
        self.notices.extend(notice);
        Ok(())
    }
}

fn pick(choices: &mut Unstructured<'_>, from: &[&'static str]) -> Result<&'static str> {
    choices.choose(from).copied()
}

/// Between two words.
fn blank(choices: &mut Unstructured<'_>) -> Result<&'static str> {
    pick(choices, &[" ", "  ", "\t", " \\\n", " \\\n\t  ", "\\\n "])
}

fn quoted(choices: &mut Unstructured<'_>, word: &str) -> Result<String> {
    Ok(match choices.int_in_range(0..=2)? {
        0 => word.to_owned(),
        1 => format!("\"{word}\""),
        _ => format!("'{word}'"),
    })
}

/// What may stand before a command on its line.
fn before(choices: &mut Unstructured<'_>) -> Result<&'static str> {
    pick(
        choices,
        &[
            "",
            "  ",
            "\t",
            "true; ",
            "true && ",
            "false || ",
            "if true; then ",
            "( ",
            "{ ",
            "nohup ",
            "A=b C='d e' ",
            "case x in x) ",
            "echo \"it's\"; ",
            "echo $((1<<2)); ",
            "echo a | ",
            "if ! ",
            "while ",
            "exec ",
            "setsid ",
            "x=$(echo \"(\"); ",
        ],
    )
}

/// What may stand behind a command, its end included.
fn after(choices: &mut Unstructured<'_>) -> Result<&'static str> {
    pick(
        choices,
        &[
            "\n",
            ";\n",
            "; x\n",
            "&\n",
            "&& x\n",
            "|| x\n",
            "| tee x\n",
            ")\n",
        ],
    )
}

/// Options that change nothing.
fn options(choices: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..choices.int_in_range(0..=3)? {
        text += blank(choices)?;
        text += pick(
            choices,
            &[
                "--cli-data-dir \"$CLI_DATA_DIR\"",
                "--parent-process-id $$",
                "${LOG_LEVEL_FLAG}",
                "${RECONNECTION_FLAG}",
                "--telemetry-level all",
                "--x='a b;c'",
                "--y=$(date +%s)",
                "--accept-server-license-terms",
                "--z=\"`id`\"",
                "--connection-token=$T",
                "--connection-token 0a-1b",
                "--install-extension 'it;s'",
                "--w=a\\ b",
            ],
        )?;
    }
    Ok(text)
}

fn redirections(choices: &mut Unstructured<'_>) -> Result<&'static str> {
    pick(
        choices,
        &[
            "",
            " > \"$LOG\" 2>&1 < /dev/null ",
            " &> \"$LOG\" < /dev/null ",
            " &>> l ",
            " >l",
            " 2>&1 ",
            " >| l ",
            " <<< 'x' ",
        ],
    )
}

/// A server's option for its host, with the place of the address.
fn host(choices: &mut Unstructured<'_>, option: &str) -> Result<String> {
    Ok(match choices.int_in_range(0..=3)? {
        0 => format!("{option}={ADDRESS}"),
        1 => quoted(choices, &format!("{option}={ADDRESS}"))?,
        2 => format!("{option}={}", quoted(choices, &ADDRESS.to_string())?),
        _ => format!(
            "{option}{}{}",
            blank(choices)?,
            quoted(choices, &ADDRESS.to_string())?
        ),
    })
}

fn node_server(choices: &mut Unstructured<'_>) -> Result<String> {
    let program = pick(
        choices,
        &[
            "\"$VSCH_SERVER_SCRIPT\"",
            "\"$SERVER_SCRIPT\"",
            "$SERVER_SCRIPT",
            "${SERVER_SCRIPT}",
            "~/.cursor-server/bin/cursor-server",
            "'/a b/bin/codium-server'",
            "\"$D/bin/code-server\"",
            "/x/windsurf-server-insiders",
            "$HOME/.vscode-server/bin/0a1b2c3/bin/code-server-oss",
        ],
    )?;
    Ok(format!("{program}{}--start-server", blank(choices)?))
}

fn command_shell(choices: &mut Unstructured<'_>) -> Result<String> {
    let program = pick(
        choices,
        &[
            "\"$CLI_PATH\"",
            "$CLI_PATH",
            "\"${CLI_PATH}\"",
            "~/.vscode-server/code-0a1b2c3d4e",
            "'/a b/code'",
            "\"$D/code-insiders\"",
            "/x/code-insiders-0a1b2c3",
        ],
    )?;
    Ok(format!("{program}{}command-shell", blank(choices)?))
}

/// A command, or an assignment, that starts a server.
fn form(choices: &mut Unstructured<'_>) -> Result<String> {
    Ok(match choices.int_in_range(0..=5)? {
        0 => {
            let quote = pick(choices, &["\"", "'"])?;
            let host = match choices.arbitrary()? {
                true => format!("--on-host={ADDRESS}"),
                false => format!("--on-host {ADDRESS}"),
            };
            match choices.arbitrary()? {
                true => format!("LISTEN_ARGS={quote}{host} --on-port{quote}"),
                false => format!("LISTEN_ARGS={quote}--on-port  {host}{quote}"),
            }
        }
        1 => {
            let token = pick(
                choices,
                &[
                    "",
                    "VSCODE_CLI_REQUIRE_TOKEN=${TOKEN} ",
                    "VSCODE_CLI_REQUIRE_TOKEN=1a-2b ",
                ],
            )?;
            let shell = command_shell(choices)?;
            let args = pick(choices, &["${LISTEN_ARGS}", "$LISTEN_ARGS"])?;
            format!(
                "{token}{shell}{} {args}{}",
                options(choices)?,
                redirections(choices)?
            )
        }
        2 => {
            let shell = command_shell(choices)?;
            let host = host(choices, "--on-host")?;
            let (a, b) = (blank(choices)?, blank(choices)?);
            let redirections = redirections(choices)?;
            match choices.arbitrary()? {
                true => format!(
                    "{shell}{}{a}{host}{b}--on-port{redirections}",
                    options(choices)?
                ),
                false => format!(
                    "{shell}{a}--on-port{b}{host}{}{redirections}",
                    options(choices)?
                ),
            }
        }
        3 => {
            let shell = command_shell(choices)?;
            let port = pick(choices, &["--on-port", "\"--on-port\"", "--on-port=0"])?;
            let (blank, options) = (blank(choices)?, options(choices)?);
            format!(
                "{shell}{blank}{port}{options}{}{ADDITION}",
                redirections(choices)?
            )
        }
        4 => {
            let quote = pick(choices, &["\"", "'"])?;
            let equals = pick(choices, &["=", " = "])?;
            format!("$args{equals}{quote}--start-server --host={ADDRESS} --port=0 --x{quote}")
        }
        _ => {
            let server = node_server(choices)?;
            let host = host(choices, "--host")?;
            let (a, b) = (blank(choices)?, options(choices)?);
            let port = pick(choices, &["--port=0", "--port 0", ""])?;
            format!("{server}{b}{a}{host} {port}{}", redirections(choices)?)
        }
    })
}

/// A command that starts a server which lets everybody in.
fn tokenless(choices: &mut Unstructured<'_>) -> Result<String> {
    if choices.arbitrary()? {
        let nothing = pick(choices, &["", "''", "\"\""])?;
        let shell = command_shell(choices)?;
        let host = host(choices, "--on-host")?;
        return Ok(format!(
            "VSCODE_CLI_REQUIRE_TOKEN={nothing} {shell} --on-port {host}"
        ));
    }
    let server = node_server(choices)?;
    let host = host(choices, "--host")?;
    let open = pick(
        choices,
        &[
            "--without-connection-token",
            "--connection-token=",
            "--connection-token=''",
            "--connection-token \"\"",
            "\"--connection-token=\"",
        ],
    )?;
    Ok(match choices.arbitrary()? {
        true => format!("{server} {host} {open} --port=0"),
        false => format!("{server} {open} {host}"),
    })
}

/// The same text where it is data, or part of another command.
fn data(choices: &mut Unstructured<'_>) -> Result<String> {
    // Without what would end the quotes around it.
    let bare = |text: String| text.replace(['\'', '"', '`'], "").replace("\\\n", " ");
    Ok(match choices.int_in_range(0..=8)? {
        0 => {
            let (open, close) = *choices.choose(&[
                ("cat <<EOF\n", "EOF"),
                ("cat > f << 'E F'\n", "E F"),
                ("cat <<-\"X\"; true\n", "\t\tX"),
                ("cat <<\\E | cat\n", "E"),
                ("a <<A <<B\nA\n", "B"),
                ("x=$(cat <<EOF\n", "EOF\n)"),
            ])?;
            format!("{open}{}\n{close}\n", form(choices)?)
        }
        1 => format!("echo 'a\n{}\n' > f\n", bare(form(choices)?)),
        2 => format!("printf %s \"b\n{}\n\"\n", bare(form(choices)?)),
        3 => format!("# {}\n", form(choices)?.replace("\\\n", " ")),
        4 => format!("echo {}\n", form(choices)?),
        5 => format!("x=$({})\n", bare(form(choices)?).replace(['(', ')'], "")),
        6 => {
            let command = pick(
                choices,
                &[
                    "jupyter lab",
                    "mydb --start-server",
                    "./server command-shell --on-port",
                    "grep -F",
                ],
            )?;
            let option = pick(choices, &["--host", "--on-host"])?;
            format!("{command} {}\n", host(choices, option)?)
        }
        7 => format!(
            "echo \"Starting server with command {}\"\n",
            bare(form(choices)?)
        ),
        _ => format!(
            "OTHER_{}\n",
            bare(format!("LISTEN_ARGS=--on-host={ADDRESS} --on-port"))
        ),
    })
}

/// Lines as bootstrap scripts have them.
const LINES: [&str; 20] = [
    "echo 'ready: 7f3a'\n",
    "uname -rsv\n",
    "sh\n",
    "# it's a comment, with an odd \" in it\n",
    "OS_RELEASE_ID=\"$(grep -i '^ID=' /etc/os-release 2>/dev/null | sed 's/^ID=//gi' | sed 's/\"//g')\"\n",
    "if [ -z \"$OS_RELEASE_ID\" ]; then OS_RELEASE_ID=\"unknown\"; fi\n",
    "LISTENING_ON=`cat \"$LOG\" | grep -E 'Extension host agent listening on .+' | sed 's/.*on //'`\n",
    "for i in $(seq 1 15); do\n  sleep 0.03\ndone\n",
    "die() {\n  echo \"error: it didn't work\" >&2\n  exit $1\n}\n",
    "case \"$(uname -m)\" in\n  x86_64|amd64) ARCH=\"x64\" ;;\n  *) ARCH='' ;;\nesac\n",
    "tries=$((tries + 1)); mask=$((1<<8))\n",
    "((i=1<<3)); echo ${#PATH} $# ${x#*'}'}\n",
    "printf \"%s\\n\" \"listeningOn==$LISTENING_ON==\"\n",
    "while true; do sleep 180; printf ' '; done\n",
    "trap 'rm -rf \"$TMP\"' EXIT\n",
    "echo $'it\\'s' \"\\\"\" \\' \\\" a#b\n",
    "cat <<< \"$x\"\n",
    "wget -q \"https://update.example/commit:$C/cli\" -O \"$F\" || curl -sL \"$U\" > \"$F\"\n",
    "exec 3<&1 4>&2 5>|f\n",
    "\n",
];
