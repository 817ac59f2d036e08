//! The limit on a user's sessions on this machine, carried out: [`judge`] decides.

use std::io;
use std::time::Duration;

use crate::session_limit::{Refusal, Standing, Verdict, judge};
use crate::sys::own_sessions;

/// How long a younger session that asks at the same moment may take to run or to leave.
const CONTEST: Duration = Duration::from_millis(500);

/// Takes a place among those of this user's sessions, where there may be `limit`, 0 for any number.
/// It is kept for as long as this process lives.
///
/// # Errors
/// All are taken.
pub(super) fn take_place(limit: u32) -> Result<(), Refusal> {
    let verdict = match usize::try_from(limit) {
        Ok(0) | Err(_) => Ok(Verdict::Free),
        Ok(limit) => ask(limit),
    };
    match verdict {
        Ok(Verdict::Refused(refusal)) => return Err(refusal),
        // Those that were waited for have had all the time they need.
        Ok(Verdict::Free | Verdict::Contested(_)) => {}
        Err(error) => {
            log::warn!("cannot count your sessions, so their number is not limited: {error}")
        }
    }
    own_sessions::say(Standing::Runs)
        .unwrap_or_else(|error| log::debug!("cannot name this process: {error}"));
    Ok(())
}

fn ask(limit: usize) -> io::Result<Verdict> {
    own_sessions::say(Standing::Asks)?;
    let own = own_sessions::own()?;
    let verdict = judge(limit, own, &own_sessions::peers()?);
    let Verdict::Contested(younger) = verdict else {
        return Ok(verdict);
    };
    own_sessions::await_end(&younger, CONTEST);
    Ok(judge(limit, own, &own_sessions::peers()?))
}
