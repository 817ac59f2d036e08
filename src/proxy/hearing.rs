//! What the job's shell, Slurm and the server say in the job's output, and what follows from it.

use std::time::Instant;

use bstr::ByteSlice;

use crate::ending::JobId;
use crate::intercept::{ProbeAnswer, STARTUP_ENDED};
use crate::opening::Opening;
use crate::session::Event;

use super::outlet::Said;
use super::reach::REPORT_LIMIT;
use super::sink::Io;
use super::{Owner, Proxy, Question, SILENCE, Stream};

impl Proxy {
    pub(super) fn turn_outlet(&mut self, stream: Stream, now: Instant) {
        let (outlet, mut io, scratch, said) = self.outlet(stream);
        outlet.turn(&mut io, scratch, said);
        self.hear(stream, now);
    }

    /// Acts on what `stream` has said, and answers the addresses that it holds.
    fn hear(&mut self, stream: Stream, now: Instant) {
        let mut said = std::mem::take(&mut self.said);
        for said in said.drain(..) {
            match said {
                Said::Answered(answer) => self.answered(answer, stream, now),
                Said::Allocation(allocation) => self.heed_allocation(allocation, now),
                Said::Word(word) if word == STARTUP_ENDED => self.startup_ended(now),
                Said::EndedAside(last) => self.startup_cut_short(stream, &last),
                Said::Word(word) => self.heed_word(&word, now),
                Said::Echo => self.heed_life(now + REPORT_LIMIT),
                Said::Spoken if stream == Stream::Stdout => self.heed_life(now + SILENCE),
                Said::Spoken => {}
                Said::AnnouncedSocket => {
                    log::warn!(
                        "the server listens on a Unix socket, which cannot be reached from here: \
                         switch off \"Remote.SSH: Remote Server Listen On Socket\" in VS Code"
                    );
                    self.announced();
                }
            }
        }
        self.said = said;
        while let Some(announcement) = self.outlet(stream).0.held() {
            self.announced();
            if self.backend.node().is_none() {
                self.session.tell(Event::AnnouncementHeld, now);
                return;
            }
            let port = self
                .listeners
                .stand_for(announcement.port, &mut self.reactor);
            let (outlet, mut io, _, said) = self.outlet(stream);
            outlet.release(port, &mut io, said);
            let (forwards, mut net) = self.net();
            forwards.unpark(&mut net);
            if !self.said.is_empty() {
                return self.hear(stream, now);
            }
        }
    }

    /// The shell has told where it runs.
    fn answered(&mut self, answer: ProbeAnswer, stream: Stream, now: Instant) {
        if self.backend.node().is_some() {
            return;
        }
        let is_here = answer.node == self.here;
        self.stderr.allocation_is_known();
        if let Some(job) = answer.job.as_deref().and_then(JobId::parse) {
            self.job_known(job);
        }
        if let Some(job) = self.job {
            log::info!("the shell runs on {} in job {job}", answer.node.as_bstr());
        } else {
            log::info!("the shell runs on {}", answer.node.as_bstr());
        }
        if is_here && (self.is_salloc || self.job.is_some()) {
            log::warn!(
                "the job's shell runs on this machine, {}, and not on a compute node: this \
                 cluster's salloc starts it here (its LaunchParameters lack \
                 use_interactive_step); put the launch command into the RemoteCommand: \
                 vscode-shell-proxy -- salloc srun --pty bash",
                answer.node.as_bstr()
            );
        }
        self.deadlines.set(Owner::Silence, None);
        self.watch.runs(answer.node.as_bstr(), now);
        self.backend.set_node(&answer, is_here);
        self.session.tell(Event::AnnouncementReleased, now);
        self.go_on(|opening| opening.begin(now));
        if self.in_job.is_none() {
            self.look_up();
        }
        // An address that the other stream holds has waited for this.
        self.hear(stream.other(), now);
    }

    /// Looks for the way to the node, before anybody needs it.
    pub(super) fn look_up(&mut self) {
        let (forwards, mut net) = self.net();
        forwards.seek(&mut net);
    }

    /// Gives the shell what the opening's next `step` has for it, and then the client's bytes.
    pub(super) fn go_on(&mut self, step: impl FnOnce(&mut Opening<Question>) -> Option<&[u8]>) {
        let mut io = Io {
            reactor: &mut self.reactor,
            pool: &mut self.stdio_pool,
        };
        if let Some(text) = step(&mut self.opening) {
            self.inlet.ask(text, &mut io);
        }
        if self.opening.is_over() {
            self.inlet.open(io.reactor);
        }
        if self.opening.awaits(Question::Startup) {
            self.startup_begins();
        }
        self.deadlines.set(Owner::Opening, self.opening.deadline());
    }

    /// An address was announced: nothing in the client's direction is ours any more.
    fn announced(&mut self) {
        let (inlet, mut io, _) = self.inlet();
        inlet.announced(&mut io);
        if self.backend.node().is_some() {
            self.stdout.stop_filtering();
            self.stderr.stop_filtering();
        }
        if !self.inlet.server_start_seen && !std::mem::replace(&mut self.unrecognised_told, true) {
            log::warn!(
                "an address was announced, but no command that starts a server was recognised in \
                 what the client sent: the server may listen on its node's loopback only, and \
                 connections to it be refused"
            );
        }
    }

    /// Answers every address that is held: unchanged.
    pub(super) fn release_held(&mut self, now: Instant) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.outlet(stream).0.held().is_some() {
                let (outlet, mut io, _, said) = self.outlet(stream);
                outlet.release(None, &mut io, said);
            }
            self.hear(stream, now);
        }
    }
}
