//! Whether one more session of a user may run on this machine, where their number is limited.
//!
//! Nobody keeps a list: a session is known by what its process calls itself. Before it looks for the
//! others it says that it asks ([`Standing::Asks`]), so of two that ask at the same moment at least
//! one sees the other; when it may run, it says so ([`Standing::Runs`]), and keeps its place for its
//! whole life. Those that run come first, then those that ask, by their start: so one of them always
//! gets the last place. That leaves a younger one that had looked before an older one said that it
//! asks. Where the two contend for a place the older one waits for what becomes of the younger, and
//! looks again.
//!
//! Pure: the list and the waiting are the owner's.

use std::ffi::CStr;
use std::fmt::{self, Display};

use crate::process_tree::{Id, Pid};

/// Most processes that a refusal names.
const NAMED: usize = 8;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is looking whether it may run.
    Asks,
    /// It may run.
    Runs,
}

impl Standing {
    /// What a session's process calls itself: at most 15 bytes, which is what the kernel keeps.
    pub fn name(self) -> &'static CStr {
        match self {
            Self::Asks => c"vscode-starting",
            Self::Runs => c"vscode-session",
        }
    }
}

/// A process of the user's that calls itself as a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which one it is.
    pub id: Id,
    /// Its parent.
    pub parent: Pid,
    /// How far it has come.
    pub standing: Standing,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a place.
    Free,
    /// There is one unless these younger ones, which ask too, have not seen this one. They do not
    /// take long.
    Contested(Vec<Id>),
    /// There is none.
    Refused(Refusal),
}

/// Why a session may not run: one line for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    limit: usize,
    /// Those that run or were first, oldest first.
    others: Vec<Pid>,
}

/// May `own`, which asks, run beside `peers` where `limit` sessions may run at a time? It may itself
/// be among them.
pub fn judge(limit: usize, own: Id, peers: &[Peer]) -> Verdict {
    let is_peer = |pid: Pid| peers.iter().any(|peer| peer.id.pid == pid);
    let age = |id: Id| (id.start, id.pid);
    let (mut first, mut younger): (Vec<Id>, Vec<Id>) = (Vec::new(), Vec::new());
    for peer in peers {
        // Between fork and exec a session's child has its name.
        if peer.id == own || is_peer(peer.parent) {
            continue;
        }
        match peer.standing {
            Standing::Asks if age(peer.id) > age(own) => younger.push(peer.id),
            // In order: a sort is 6 KB of program.
            Standing::Asks | Standing::Runs => {
                let place = first.partition_point(|id| age(*id) < age(peer.id));
                first.insert(place, peer.id);
            }
        }
    }
    if first.len() >= limit {
        let others = first.into_iter().map(|id| id.pid).collect();
        Verdict::Refused(Refusal { limit, others })
    } else if first.len() + younger.len() >= limit {
        Verdict::Contested(younger)
    } else {
        Verdict::Free
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, count) = (self.limit, self.others.len());
        let named = &self.others[..count.min(NAMED)];
        let (run, processes) = match count {
            1 => ("session of yours runs", "process"),
            _ => ("sessions of yours run", "processes"),
        };
        write!(f, "{count} {run} on this machine already ({processes} ")?;
        for (index, pid) in named.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{pid}")?;
        }
        if count > named.len() {
            write!(f, " and {} more", count - named.len())?;
        }
        write!(
            f,
            "), and no more than {limit} may (max-sessions): close a window, or end a session that no \
             window belongs to with kill and its process id"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(pid: Pid, start: u64) -> Id {
        Id { pid, start }
    }

    fn peer(pid: Pid, start: u64, standing: Standing) -> Peer {
        Peer {
            id: id(pid, start),
            parent: 1,
            standing,
        }
    }

    use Standing::{Asks, Runs};

    #[test]
    fn those_that_run_and_the_older_ones_that_ask_come_first() {
        let own = id(50, 1000);
        for (peers, limit, expected) in [
            (vec![], 1, Some("free")),
            (vec![peer(50, 1000, Asks)], 1, Some("free")),
            (vec![peer(40, 900, Runs)], 1, None),
            (vec![peer(40, 900, Runs)], 2, Some("free")),
            // It had found a place, whenever it was started.
            (vec![peer(60, 1100, Runs)], 1, None),
            (vec![peer(40, 900, Asks)], 1, None),
            (vec![peer(40, 1000, Asks)], 1, None),
            // Numbers are used again: the start counts.
            (vec![peer(60, 900, Asks)], 1, None),
            (vec![peer(60, 1000, Asks)], 1, Some("contested")),
            (vec![peer(40, 1100, Asks)], 1, Some("contested")),
            (vec![peer(60, 1100, Asks)], 2, Some("free")),
            (
                vec![peer(60, 1100, Asks), peer(40, 900, Runs)],
                2,
                Some("contested"),
            ),
        ] {
            let got = match judge(limit, own, &peers) {
                Verdict::Free => Some("free"),
                Verdict::Contested(_) => Some("contested"),
                Verdict::Refused(_) => None,
            };
            assert_eq!(got, expected, "limit {limit}, {peers:?}");
        }
    }

    #[test]
    fn those_that_are_waited_for_are_the_younger_ones() {
        let peers = [
            peer(60, 1100, Asks),
            peer(40, 900, Runs),
            peer(61, 1100, Asks),
        ];
        assert_eq!(
            judge(3, id(50, 1000), &peers),
            Verdict::Contested(vec![id(60, 1100), id(61, 1100)])
        );
    }

    #[test]
    fn a_session_that_is_about_to_start_another_program_counts_once() {
        let child = Peer {
            parent: 40,
            ..peer(41, 950, Runs)
        };
        let peers = [child, peer(40, 900, Runs)];
        assert_eq!(judge(2, id(50, 1000), &peers), Verdict::Free);
    }

    #[test]
    fn a_refusal_names_limit_and_sessions_and_what_to_do() {
        let refused = |limit, peers: &[Peer]| match judge(limit, id(50, 1000), peers) {
            Verdict::Refused(refusal) => refusal.to_string(),
            verdict => panic!("{verdict:?}"),
        };
        assert_eq!(
            refused(1, &[peer(40, 900, Runs)]),
            "1 session of yours runs on this machine already (process 40), and no more than 1 may \
             (max-sessions): close a window, or end a session that no window belongs to with kill \
             and its process id"
        );
        let many: Vec<Peer> = (0..10)
            .map(|n| peer(100 - n, 900 + u64::from(n.unsigned_abs()), Runs))
            .collect();
        assert!(
            refused(9, &many).starts_with(
                "10 sessions of yours run on this machine already (processes 100, 99, 98, 97, 96, \
                 95, 94, 93 and 2 more), and no more than 9 may"
            ),
            "{}",
            refused(9, &many)
        );
    }

    #[test]
    fn the_kernel_keeps_the_whole_name() {
        for standing in [Asks, Runs] {
            assert!(standing.name().to_bytes().len() <= 15);
        }
    }

    /// One that looks, as the system does it: first it says that it asks, then it looks at the
    /// others one by one, then it acts.
    #[derive(Clone, Debug)]
    struct Looker {
        id: Id,
        standing: Option<Standing>,
        /// How many of all it has looked at; `None` before it asks.
        looked: Option<usize>,
        seen: Vec<Peer>,
        awaits: Vec<Id>,
        waited: bool,
        is_out: bool,
    }

    impl Looker {
        fn is_done(&self) -> bool {
            self.is_out || self.standing == Some(Runs)
        }

        fn step(&mut self, limit: usize, all: &[Looker]) {
            let asks = |id: &Id| all.iter().any(|it| it.id == *id && !it.is_done());
            match self.looked {
                None => {
                    self.standing = Some(Asks);
                    self.looked = Some(0);
                }
                Some(_) if self.awaits.iter().any(asks) => {}
                Some(next) if next < all.len() => {
                    let other = &all[next];
                    if let Some(standing) = other.standing.filter(|_| !other.is_out) {
                        self.seen.push(Peer {
                            id: other.id,
                            parent: 1,
                            standing,
                        });
                    }
                    self.looked = Some(next + 1);
                }
                Some(_) => match judge(limit, self.id, &self.seen) {
                    Verdict::Free => self.standing = Some(Runs),
                    Verdict::Contested(_) if self.waited => self.standing = Some(Runs),
                    Verdict::Contested(younger) => {
                        self.awaits = younger;
                        self.waited = true;
                        self.seen.clear();
                        self.looked = Some(0);
                    }
                    Verdict::Refused(_) => self.is_out = true,
                },
            }
        }
    }

    proptest! {
        /// In whatever order any number of sessions take their steps, no more than the limit get a
        /// place, and no place is left while somebody was refused.
        #[test]
        fn the_limit_is_reached_and_kept(
            limit in 1..4_usize,
            starts in proptest::collection::vec(0..3_u64, 1..5),
            turns in proptest::collection::vec(0..5_usize, 0..60),
        ) {
            let looker = |(index, start): (usize, &u64)| Looker {
                id: id(10 + Pid::try_from(index).expect("few"), *start),
                standing: None,
                looked: None,
                seen: Vec::new(),
                awaits: Vec::new(),
                waited: false,
                is_out: false,
            };
            let mut all: Vec<Looker> = starts.iter().enumerate().map(looker).collect();
            let fair = (0..all.len()).cycle().take(all.len() * 40);
            for turn in turns.into_iter().chain(fair) {
                let index = turn % all.len();
                let mut one = all[index].clone();
                if !one.is_done() {
                    one.step(limit, &all);
                    all[index] = one;
                }
            }
            let running = all.iter().filter(|it| it.standing == Some(Runs)).count();
            prop_assert!(all.iter().all(Looker::is_done));
            prop_assert_eq!(running, limit.min(all.len()), "{:?}", all);
        }
    }
}
