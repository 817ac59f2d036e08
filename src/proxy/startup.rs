//! The site's startup commands: they run in the job's shell before the client's first byte, and what
//! they write goes to the log.

use std::time::{Duration, Instant};

use crate::intercept::{Probe, startup_text};
use crate::opening::Step;
use crate::session::Event;

use super::{Proxy, Question, Stream};

/// How long the commands may take, all together, from the moment in which the shell has answered.
const LIMIT: Duration = Duration::from_secs(60);
/// Their end is said on stdout and on stderr. Where both lead to the same place it comes twice there.
const ENDS: u8 = 2;

/// What is known of the commands' end.
#[derive(Debug, Default)]
pub(super) struct Startup {
    /// How many times it was said.
    ends: u8,
}

/// The question that is settled when the commands have ended, if there are any.
pub(super) fn step(commands: &[String], probe: &Probe) -> Option<Step<Question>> {
    let step = || Step {
        name: Question::Startup,
        text: startup_text(commands, probe.marker()),
        limit: LIMIT,
    };
    (!commands.is_empty()).then(step)
}

impl Proxy {
    /// The commands were handed to the shell, just now.
    pub(super) fn startup_begins(&mut self) {
        log::debug!("the startup commands begin");
        self.stdout.set_aside();
        self.stderr.set_aside();
    }

    /// One of the streams has said that the commands have ended.
    pub(super) fn startup_ended(&mut self, now: Instant) {
        self.startup.ends += 1;
        if self.startup.ends < ENDS || !self.opening.awaits(Question::Startup) {
            return;
        }
        log::info!("the startup commands have ended");
        self.stdout.pass_on();
        self.stderr.pass_on();
        self.go_on(|opening| opening.settle(Question::Startup, now));
    }

    /// The commands have not ended in time.
    pub(super) fn startup_overdue(&mut self, now: Instant) {
        let said = [&self.stderr, &self.stdout].map(|outlet| outlet.last_set_aside().to_owned());
        let last = said.into_iter().find(|line| !line.is_empty());
        log::error!(
            "the startup commands have not ended within {} s{}",
            LIMIT.as_secs(),
            last_words(last.as_deref().unwrap_or_default())
        );
        self.session.tell(Event::OpeningFailed, now);
    }

    /// A stream of the shell has ended before the commands did.
    pub(super) fn startup_cut_short(&self, stream: Stream, last: &str) {
        if !self.session.is_ending() {
            log::warn!(
                "the shell's {} has ended during the startup commands{}",
                stream.name(),
                last_words(last)
            );
        }
    }
}

fn last_words(line: &str) -> String {
    match line.is_empty() {
        true => String::new(),
        false => format!("; their last words: {line}"),
    }
}
