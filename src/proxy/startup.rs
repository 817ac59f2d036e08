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
        log::error!("{}", overdue(last.as_deref().unwrap_or_default()));
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

fn overdue(last: &str) -> String {
    format!(
        "the startup commands have not ended within {} s{}",
        LIMIT.as_secs(),
        last_words(last)
    )
}

fn last_words(line: &str) -> String {
    match line.is_empty() {
        true => String::new(),
        false => format!("; their last words: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::{Opening, Overdue};
    use crate::session::{Session, Wish};

    fn step_of(commands: &[&str]) -> Option<Step<Question>> {
        let commands: Vec<String> = commands.iter().map(|&it| it.to_owned()).collect();
        step(&commands, &Probe::new([0; 16], None))
    }

    #[test]
    fn commands_have_sixty_seconds_from_the_shells_answer_on_and_then_the_session_ends() {
        let started = Instant::now();
        let mut opening = Opening::new(step_of(&["wait for x"]));
        let mut session = Session::new();
        // The job waits in its queue: nothing is due.
        assert_eq!((opening.deadline(), session.deadline(false)), (None, None));
        let answered = started + Duration::from_secs(7200);
        let text = opening.begin(answered).expect("the commands");
        assert!(text.starts_with(b"eval 'wait for x' < /dev/null\n"));

        let due = answered + Duration::from_secs(60);
        assert_eq!(opening.deadline(), Some(due));
        assert_eq!(opening.overdue(due - Duration::from_nanos(1)), None);
        assert_eq!(
            opening.overdue(due),
            Some(Overdue::Question(Question::Startup))
        );
        // The client's bytes go nowhere from now on.
        assert!(!opening.is_over());
        session.tell(Event::OpeningFailed, due);
        assert_eq!(session.wish(), Some(Wish::EndJob));
        session.tell(Event::KeeperDone, due);
        assert_eq!(session.wish(), Some(Wish::Leave(1)));
    }

    #[test]
    fn without_commands_nothing_is_awaited() {
        assert!(step_of(&[]).is_none());
    }

    #[test]
    fn what_is_said_of_the_limit_is_what_the_readme_shows() {
        let shown = include_str!("../../README.md");
        let line = format!("vscode-shell-proxy: error: {}\n", overdue("waiting for x"));
        assert!(shown.contains(&line), "{line}");
        assert_eq!(
            overdue(""),
            "the startup commands have not ended within 60 s"
        );
    }
}
