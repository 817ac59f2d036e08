//! Where the job runs, and where it finds this program.

use std::fmt;
use std::path::PathBuf;

use crate::home_copy;

use super::failure::Failure;
use super::player::Player;
use super::report::{pass, skip};
use super::script;

/// Where the job runs.
pub(super) struct Place {
    /// The node's own name for itself.
    pub(super) node: String,
    machine: String,
    job: String,
    /// Is it this host?
    pub(super) is_here: bool,
    own_machine: String,
}

impl Place {
    /// Asks the job's shell.
    pub(super) fn ask(player: &mut Player) -> Result<Self, Failure> {
        let expected = "the node's name, its architecture and the job's id";
        let answer = player.ask(script::PLACE, expected)?;
        let mut words = answer.split(' ').map(str::to_owned);
        let (Some(node), Some(machine), Some(job)) = (words.next(), words.next(), words.next())
        else {
            return Err(Failure::new(expected, &format!("{answer:?}")));
        };
        let own = rustix::system::uname();
        let is_here = node.as_bytes() == own.nodename().to_bytes();
        let own_machine = own.machine().to_string_lossy().into_owned();
        Ok(Self {
            node,
            machine,
            job,
            is_here,
            own_machine,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = if self.is_here {
            "this host"
        } else {
            "not this host"
        };
        write!(
            f,
            "node {} ({here}), {}, job {}",
            self.node, self.machine, self.job
        )
    }
}

/// The program's path in the job; where the job does not see it, that of a copy. `None`, which is
/// reported and no failure, where the node's architecture is another one.
pub(super) fn find_program(player: &mut Player, place: &Place) -> Result<Option<PathBuf>, Failure> {
    if place.machine != place.own_machine {
        let Place {
            machine,
            own_machine,
            ..
        } = place;
        skip(
            "server",
            format_args!("this program is of {own_machine} and cannot run on {machine}"),
        );
        return Ok(None);
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure::new("the path of this program", &error.to_string()))?;
    let answer = "whether the job sees this program, yes or no";
    let is_seen = |player: &mut Player, path| Ok(player.ask(script::sees(path), answer)? == "yes");
    let is_own = is_seen(player, &own)?;
    let program = if is_own {
        own
    } else {
        let expected = "a copy of this program in the home directory, for the job";
        let program = home_copy::make().map_err(|e| Failure::new(expected, &e.to_string()))?;
        if !is_seen(player, &program)? {
            let got = format!("the job does not see {}", program.display());
            return Err(Failure::new(expected, &got).hint(
                "Login and compute nodes do not share the home directory, or it is mounted noexec \
                 there. Put this program where the nodes see it and run the test there.",
            ));
        }
        program
    };
    let expected = "this program runs on the job's node";
    let said = player.ask(script::runs(&program), expected)?;
    if !said.starts_with("0 ") {
        return Err(Failure::new(expected, &format!("status and output {said:?}")).hint(
            "An older C library on the nodes than here? Build the program on the oldest system.",
        ));
    }
    let copied = match is_own {
        true => "",
        false => " (a copy: the job does not see this program)",
    };
    pass("program", format_args!("{}{copied}", program.display()));
    Ok(Some(program))
}
