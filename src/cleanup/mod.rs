//! One pass of `vscode-cleanup`: scan, select, end, report.
//!
//! The rules are in [`crate::process_tree`]; here are the system calls around them.

pub mod end;
pub mod options;
pub mod report;
pub mod scan;
pub mod sockets;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, geteuid};

use crate::process_tree::{self, Limits, Pid, Process, Spared, Tree};
use crate::sys::adopter;
use end::{Identity, Order, Outcome};
use options::Options;
use report::{Listing, Row};
use sockets::Use;

/// Why a pass could not be made.
#[derive(Debug)]
pub enum Error {
    /// `--user` names somebody whom the system does not know.
    NoSuchUser(String),
    /// A system call failed; what it was for.
    System(&'static str, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => {
                write!(
                    f,
                    "--user {name:?}: there is no such user; right is a name or number"
                )
            }
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Makes one pass and writes the listing to `out`. Returns whether all that should be ended was.
///
/// # Errors
/// See [`Error`]. A reader of `out` that went away is none.
pub fn run(options: &Options, identity: Identity, out: &mut impl Write) -> Result<bool, Error> {
    let listing = pass(options, identity)?;
    match report::write(&listing, options, report::width(), out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::System("cannot write the listing", error))
        }
        _ => Ok(listing.is_done()),
    }
}

/// Finds the trees and, if asked to, ends them.
///
/// # Errors
/// See [`Error`].
pub fn pass(options: &Options, identity: Identity) -> Result<Listing, Error> {
    let mut limits = limits(options)?;
    let scan_failed = |error| Error::System("cannot read /proc", error);
    limits.now = scan::now();
    let processes = scan::processes().map_err(scan_failed)?;
    let mut trees = process_tree::trees(&processes, &limits);
    if trees.iter().any(|tree| tree.spared == Some(Spared::Parent)) {
        // Perhaps its parent adopts orphans, which only an orphan can tell.
        match adopter::measure() {
            Ok(adopter) => limits.adopters.push(adopter),
            Err(error) => log::debug!("cannot measure who adopts orphans: {error}"),
        }
        trees = process_tree::trees(&processes, &limits);
    }
    if !options.include_attached {
        spare_attached(&processes, &mut trees);
    }
    let mut listing = Listing::new(limits.now);
    for tree in &trees {
        match tree.spared {
            // Not what the caller has asked about.
            Some(Spared::User) => {}
            Some(why) => {
                let root = &processes[tree.root()];
                log::info!("left alone: {}: {why}", root.stat.id.pid);
                listing.spared.push((root.clone(), why));
            }
            None => {}
        }
    }
    trees.retain(|tree| tree.spared.is_none());
    if options.kill && !trees.is_empty() {
        end_trees(&processes, &trees, &limits, options, identity, &mut listing)?;
    } else {
        for tree in &trees {
            listing.rows.extend(tree.members.iter().map(|&i| Row {
                root: processes[tree.root()].stat.id.pid,
                process: processes[i].clone(),
                outcome: None,
            }));
        }
    }
    Ok(listing)
}

fn limits(options: &Options) -> Result<Limits, Error> {
    let uid = geteuid();
    let users: Result<Vec<u32>, Error> = options.users.iter().map(|name| user(name)).collect();
    Ok(Limits {
        own: std::process::id().cast_signed(),
        caller: (!uid.is_root()).then(|| uid.as_raw()),
        users: users?,
        now: 0,
        // What is longer than the clock can count is never reached.
        age: options
            .age
            .as_secs()
            .saturating_mul(scan::ticks_per_second()),
        patterns: options.patterns.clone(),
        include_attached: options.include_attached,
        include_jobs: options.include_jobs,
        adopters: Vec::new(),
    })
}

fn user(name: &str) -> Result<u32, Error> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => name.parse().map_err(|_| Error::NoSuchUser(name.to_owned())),
        Err(errno) => Err(Error::System("cannot look up --user", errno.into())),
    }
}

fn spare_attached(processes: &[Process], trees: &mut [Tree]) {
    let mut asked: Vec<&mut Tree> = trees.iter_mut().filter(|t| t.spared.is_none()).collect();
    let pids: Vec<Vec<Pid>> = asked
        .iter()
        .map(|tree| {
            tree.members
                .iter()
                .map(|&i| processes[i].stat.id.pid)
                .collect()
        })
        .collect();
    for (tree, use_) in asked.iter_mut().zip(sockets::uses(&pids)) {
        tree.spared = match use_ {
            Use::Free => None,
            Use::Attached => Some(Spared::Attached),
            Use::Unseen => Some(Spared::Unseen),
        };
    }
}

fn end_trees(
    processes: &[Process],
    trees: &[Tree],
    limits: &Limits,
    options: &Options,
    identity: Identity,
    listing: &mut Listing,
) -> Result<(), Error> {
    raise_descriptor_limit();
    let adopters = trees.iter().filter_map(|tree| tree.adopter);
    let order = Order {
        identity,
        grace: Duration::from(options.grace),
        include_attached: options.include_attached,
        adopters: adopters
            .chain(limits.adopters.iter().copied())
            .chain([1])
            .collect(),
        permits: &|uid| limits.permits(uid),
    };
    let targets = trees
        .iter()
        .map(|tree| tree.members.iter().map(|&i| processes[i].clone()).collect())
        .collect();
    let mut members = end::end(targets, &order).map_err(|e| Error::System("cannot end", e))?;
    // Who was born meanwhile comes behind the others of its tree.
    members.sort_by_key(|member| member.tree);
    listing.rows.extend(members.into_iter().map(|member| Row {
        root: processes[trees[member.tree].root()].stat.id.pid,
        process: member.process,
        outcome: member.outcome,
    }));
    Ok(())
}

/// A pidfd for each process: as many as the system allows. Those that get none are held by their
/// start time.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("cannot raise the limit of {soft} descriptors: {errno}");
    }
}

impl Listing {
    /// Was everything that should be ended ended?
    pub fn is_done(&self) -> bool {
        let mut outcomes = self.rows.iter().map(|row| &row.outcome);
        !outcomes.any(|outcome| matches!(outcome, Some(Outcome::Refused(_))))
    }
}
