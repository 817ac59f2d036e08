//! Who belongs to a tree while it is being ended: processes come and go between two looks.

use std::collections::{HashMap, HashSet};

use super::{Id, Pid, Stat, Ticks};

/// The members of some trees, carried from one snapshot to the next.
///
/// A process joins as the child of a member. It joins too if its parent, unseen, was gone before
/// we looked: then it has been given to the tree's adopter, was born since we began, and is still
/// in a session or process group that the tree alone has. One that has left both in that moment
/// is not recognised, rather than guessed at.
#[derive(Debug)]
pub struct Following {
    since: Ticks,
    adopters: HashSet<Pid>,
    /// Everybody who ever was a member, with the tree's number. A number used again by another
    /// process is recognised by its start.
    members: HashMap<Pid, (Ticks, usize)>,
    sessions: HashMap<Pid, usize>,
    groups: HashMap<Pid, usize>,
}

impl Following {
    /// Nobody yet. `since` is the boot clock now; `adopters` are the processes that orphans of
    /// the trees are given to.
    pub fn new(since: Ticks, adopters: impl IntoIterator<Item = Pid>) -> Self {
        Self {
            since,
            adopters: adopters.into_iter().collect(),
            members: HashMap::new(),
            sessions: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// Makes a process a member of tree number `tree`.
    pub fn add(&mut self, stat: &Stat, tree: usize) {
        self.members.insert(stat.id.pid, (stat.id.start, tree));
        self.sessions.insert(stat.session, tree);
        self.groups.insert(stat.group, tree);
    }

    /// The tree of a process, if it is a member and not another one under the same number.
    pub fn tree_of(&self, id: Id) -> Option<usize> {
        let &(start, tree) = self.members.get(&id.pid)?;
        (start == id.start).then_some(tree)
    }

    /// Finds the new members among all processes of a later snapshot and adds them. `is_owners`
    /// is asked whether an orphan has the same user as a tree.
    ///
    /// Returns indices into `now` with the trees' numbers, parents before their children.
    pub fn look(
        &mut self,
        now: &[Stat],
        mut is_owners: impl FnMut(&Stat, usize) -> bool,
    ) -> Vec<(usize, usize)> {
        let alive: HashMap<Pid, Id> = now.iter().map(|stat| (stat.id.pid, stat.id)).collect();
        let mut children: HashMap<Pid, Vec<usize>> = HashMap::new();
        for (i, stat) in now.iter().enumerate() {
            children.entry(stat.parent).or_default().push(i);
        }
        let mut pending: Vec<(usize, usize)> = Vec::new();
        for (i, stat) in now.iter().enumerate() {
            let tree = self.tree_of(stat.id).or_else(|| {
                self.left_behind(stat, &alive)
                    .filter(|&tree| is_owners(stat, tree))
            });
            pending.extend(tree.map(|tree| (i, tree)));
        }
        let mut new = Vec::new();
        let mut seen: HashSet<Pid> = HashSet::new();
        while let Some((i, tree)) = pending.pop() {
            let stat = &now[i];
            if stat.id.pid == 1 || stat.is_kernel || !seen.insert(stat.id.pid) {
                continue;
            }
            if self.tree_of(stat.id).is_none() && !stat.is_dead() {
                self.add(stat, tree);
                new.push((i, tree));
            }
            let below = children.get(&stat.id.pid).into_iter().flatten();
            // A child is never older than its parent: else the number was used again.
            pending.extend(
                below
                    .filter(|&&child| now[child].id.start >= stat.id.start)
                    .map(|&child| (child, tree)),
            );
        }
        new
    }

    fn left_behind(&self, stat: &Stat, alive: &HashMap<Pid, Id>) -> Option<usize> {
        // A session or group is the tree's alone if its leader is one of us or is gone.
        let is_ours = |leader: &Pid| {
            alive
                .get(leader)
                .is_none_or(|&id| self.tree_of(id).is_some())
        };
        if stat.id.start < self.since || stat.is_dead() || !self.adopters.contains(&stat.parent) {
            return None;
        }
        let by_session = self.sessions.get(&stat.session);
        let by_group = self.groups.get(&stat.group);
        by_session
            .filter(|_| is_ours(&stat.session))
            .or_else(|| by_group.filter(|_| is_ours(&stat.group)))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process_tree::tests::stat;

    fn following() -> Following {
        let mut following = Following::new(1_000, [1]);
        following.add(&stat(100, 1, 50, 90), 0);
        following
    }

    fn look(following: &mut Following, now: &[Stat]) -> Vec<Pid> {
        let new = following.look(now, |_, _| true);
        new.into_iter().map(|(i, _)| now[i].id.pid).collect()
    }

    #[test]
    fn descendants_join_parents_first() {
        let now = [
            stat(102, 101, 1_001, 90),
            stat(1, 0, 0, 1),
            stat(100, 1, 50, 90),
            stat(101, 100, 60, 90),
            stat(200, 1, 60, 200),
        ];
        let mut following = following();
        assert_eq!(look(&mut following, &now), [101, 102]);
        assert_eq!(look(&mut following, &now), [0; 0]);
        assert_eq!(following.tree_of(now[0].id), Some(0));
    }

    #[test]
    fn a_number_used_again_is_nobody_of_ours() {
        // The root is gone; its number belongs to another process, which has a child.
        let now = [stat(100, 1, 2_000, 100), stat(101, 100, 2_001, 100)];
        assert_eq!(look(&mut following(), &now), [0; 0]);
        assert_eq!(following().tree_of(now[0].id), None);
        // A process older than the one that has its parent's number now.
        let now = [stat(100, 1, 50, 90), stat(101, 100, 49, 100)];
        assert_eq!(look(&mut following(), &now), [0; 0]);
    }

    #[test]
    fn a_child_whose_parent_is_gone_joins_by_session() {
        assert_eq!(look(&mut following(), &[stat(300, 1, 1_001, 90)]), [300]);
        // In the same tick.
        assert_eq!(look(&mut following(), &[stat(300, 1, 1_000, 90)]), [300]);
        // Born before we began, or given to somebody else, or in another session.
        for other in [
            stat(300, 1, 999, 90),
            stat(300, 7, 1_001, 90),
            stat(300, 1, 1_001, 91),
        ] {
            assert_eq!(look(&mut following(), &[other]), [0; 0], "{other:?}");
        }
        // The session's leader lives and is not of the tree: a login that goes on.
        let now = [stat(90, 80, 10, 90), stat(300, 1, 1_001, 90)];
        assert_eq!(look(&mut following(), &now), [0; 0]);
        // Another user's.
        let now = [stat(300, 1, 1_001, 90)];
        assert!(following().look(&now, |_, _| false).is_empty());
    }

    #[test]
    fn a_circle_in_a_torn_snapshot_is_walked_once() {
        let now = [stat(100, 101, 50, 90), stat(101, 100, 50, 90)];
        assert_eq!(look(&mut following(), &now), [101]);
    }

    #[test]
    fn a_kernel_thread_never_joins() {
        let mut kernel = stat(101, 100, 1_001, 90);
        kernel.is_kernel = true;
        assert_eq!(
            look(&mut following(), &[stat(100, 1, 50, 90), kernel]),
            [0; 0]
        );
    }

    #[test]
    fn the_dead_and_the_first_process_never_join() {
        let mut zombie = stat(101, 100, 1_001, 90);
        zombie.state = b'Z';
        assert_eq!(
            look(&mut following(), &[stat(100, 1, 50, 90), zombie]),
            [0; 0]
        );
        let mut following = Following::new(0, [1]);
        following.add(&stat(1, 1, 0, 1), 0);
        assert_eq!(
            look(&mut following, &[stat(1, 1, 0, 1), stat(5, 1, 5, 5)]),
            [0; 0]
        );
    }
}
