use super::*;
use proptest::prelude::*;

/// What `/proc` says: what each number executes.
#[derive(Default)]
struct Now {
    at_ns: u64,
    executes: HashMap<i32, &'static str>,
}

fn identity(pid: i32, exe: &str) -> Identity {
    Identity {
        pid,
        name: exe.trim_start_matches('/').into(),
        exe: Some(exe.into()),
        arguments: Some(format!("{exe}\0-x\0").into_bytes()),
        uid: Some(7),
        login_uid: None,
        started_us: 1,
        parent: 0,
        cgroup: Some(b"/system.slice/cron.service".to_vec()),
    }
}

impl Look for Now {
    fn program(&mut self, pid: i32) -> Option<Program> {
        Program::of(identity(pid, self.executes.get(&pid)?), self.at_ns)
    }

    fn exe(&mut self, pid: i32) -> Option<(Vec<u8>, u64)> {
        Some((self.executes.get(&pid)?.as_bytes().to_vec(), self.at_ns))
    }
}

/// A cache with time going on by one at each event, heard at once.
struct Clockwork {
    cache: Cache,
    now: Now,
}

impl Clockwork {
    fn new() -> Self {
        Self { cache: Cache::since(0), now: Now::default() }
    }

    fn hear_late(&mut self, at_ns: u64, what: What) {
        self.cache.hear(&Event { at_ns, what }, &mut self.now);
    }

    fn hear(&mut self, what: What) -> u64 {
        self.now.at_ns += 10;
        let at_ns = self.now.at_ns - 5;
        self.hear_late(at_ns, what);
        at_ns
    }

    fn begin(&mut self, process: i32, parent: i32, exe: &'static str) {
        self.now.executes.insert(process, exe);
        self.hear(What::Began { process, parent });
    }

    fn execute(&mut self, process: i32, exe: &'static str) {
        self.now.executes.insert(process, exe);
        self.hear(What::Executed { process });
    }

    fn end(&mut self, process: i32) -> u64 {
        self.now.executes.remove(&process);
        self.hear(What::Ended { process })
    }

    fn exe(&self, pid: i32, since_ns: u64) -> Option<String> {
        self.cache.ended(pid, since_ns)?.exe
    }
}

#[test]
fn who_ended_has_the_name_it_had_when_it_began() {
    let mut c = Clockwork::new();
    c.begin(20, 10, "/sh");
    c.execute(20, "/touch");
    assert_eq!(c.cache.ended(20, 0), None, "it has not ended");
    let ended = c.end(20);
    let actor = c.cache.ended(20, ended).unwrap();
    assert_eq!((actor.pid, actor.comm.as_deref(), actor.exe.as_deref()), (20, Some("touch"), Some("/touch")));
    assert_eq!((actor.cmdline.as_deref(), actor.uid), (Some("/touch -x"), Some(7)));
    assert_eq!((actor.unit.as_deref(), actor.confidence), (Some("cron.service"), Confidence::Exited));
    // It was not there any more when nothing had been done yet.
    assert_eq!(c.exe(20, ended + 1), None);
    assert_eq!(c.cache.last(20).unwrap().exe.as_deref(), Some("/touch"));
}

#[test]
fn a_number_that_is_used_again_names_nobody_in_doubt() {
    let mut c = Clockwork::new();
    c.begin(20, 10, "/evil");
    c.execute(20, "/evil");
    let first = c.end(20);
    c.begin(20, 10, "/sh");
    c.execute(20, "/innocent");
    // The one alive did not do what somebody did who is gone.
    assert_eq!(c.exe(20, 0).as_deref(), Some("/evil"));
    assert_eq!(c.cache.last(20).unwrap().exe.as_deref(), Some("/innocent"));
    let second = c.end(20);
    assert_eq!(c.exe(20, first), None, "it may have been either");
    assert_eq!(c.exe(20, first + 1).as_deref(), Some("/innocent"));
    assert!(second > first);
}

#[test]
fn one_that_nobody_knows_counts_too() {
    let mut c = Clockwork::new();
    // Was there before us.
    let unknown = c.end(20);
    c.begin(20, 10, "/innocent");
    c.end(20);
    assert_eq!(c.exe(20, unknown), None);
    assert_eq!(c.exe(20, unknown + 1).as_deref(), Some("/innocent"));
    // What it became could not be read: it had ended.
    c.begin(21, 10, "/sh");
    c.now.executes.remove(&21);
    c.hear(What::Executed { process: 21 });
    c.end(21);
    assert_eq!(c.exe(21, 0), None);
    // After a loss nothing from before is believed.
    c.begin(22, 10, "/touch");
    c.cache = Cache::since(c.now.at_ns);
    let ended = c.end(22);
    assert_eq!((c.exe(22, 0), c.exe(22, ended)), (None, None));
}

#[test]
fn a_copy_is_what_its_parent_is_and_no_sibling_is() {
    let mut c = Clockwork::new();
    c.begin(20, 10, "/bash");
    c.execute(20, "/bash");
    c.hear(What::User { process: 20, uid: 33 });
    c.hear(What::Renamed { process: 20, name: b"wo\nrker".to_vec() });
    c.begin(21, 20, "/bash");
    c.end(21);
    let copy = c.cache.ended(21, 0).unwrap();
    assert_eq!(
        (copy.exe.as_deref(), copy.comm.as_deref(), copy.uid),
        (Some("/bash"), Some(r"wo\x0arker"), Some(33))
    );
    assert_eq!(copy.parents.first().map(String::as_str), Some(r"wo\x0arker (20)"));
    // CLONE_PARENT: the kernel says whose child it is, not whose copy.
    c.begin(22, 20, "/evil");
    c.end(22);
    assert_eq!(c.exe(22, 0), None);
    // A setuid program, and what it makes of itself.
    c.begin(23, 20, "/bash");
    c.execute(23, "/su");
    assert_eq!(c.cache.last(23).unwrap().uid, Some(7), "read when it began");
    c.hear(What::User { process: 23, uid: 1000 });
    c.end(23);
    assert_eq!(c.cache.ended(23, 0).unwrap().uid, Some(1000));
}

#[test]
fn what_was_read_too_late_is_not_believed() {
    let mut c = Clockwork::new();
    c.now.at_ns = 100;
    // It executed /sh at 10 and /python at 60, and is looked at, at 100, because of the first.
    c.now.executes.insert(20, "/python");
    c.hear_late(10, What::Executed { process: 20 });
    // Made between the two.
    c.now.executes.insert(21, "/python");
    c.hear_late(30, What::Began { process: 21, parent: 20 });
    c.hear_late(60, What::Executed { process: 20 });
    c.hear_late(90, What::Ended { process: 21 });
    assert_eq!(c.exe(21, 0), None, "it was a shell");
    assert_eq!(c.cache.last(20).unwrap().exe.as_deref(), Some("/python"));
    // Its number was another's already when it was looked at.
    c.now.executes.insert(30, "/innocent");
    c.hear_late(40, What::Executed { process: 30 });
    c.hear_late(50, What::Ended { process: 30 });
    c.hear_late(70, What::Began { process: 30, parent: 1 });
    assert_eq!(c.exe(30, 0), None);
}

#[test]
fn a_storm_of_commands_fits() {
    let mut c = Clockwork::new();
    c.begin(7, 1, "/daemon");
    for number in 0..30_000 {
        let pid = 1000 + number % 20_000;
        c.begin(pid, 10, "/sh");
        c.execute(pid, "/touch");
        if number % 10 != 0 {
            c.end(pid);
        }
    }
    assert!(c.cache.living.len() <= LIVING && c.cache.order.len() <= 2 * LIVING);
    assert!(c.cache.ended.len() <= ENDED && c.cache.ended.capacity() <= 2 * ENDED);
    // What is forgotten is not guessed at.
    assert_eq!(c.exe(1001, 0), None);
    let ended = c.end(7);
    assert_eq!(c.exe(7, ended), None);
    c.begin(7, 10, "/sh");
    let ended = c.end(7);
    assert_eq!(c.exe(7, ended).as_deref(), Some("/sh"));
}

/// What really happens, for a property: a handful of numbers, and a process for each, one after the other.
#[derive(Debug, Clone, Copy)]
enum Step {
    Begin { from: usize, is_sibling: bool },
    Execute(usize),
    End(usize),
    Reap(usize),
    Deed(usize),
    Hear,
    Lose,
    Read,
}

struct Process {
    pid: i32,
    parent: i32,
    /// What it was, with when that began.
    programs: Vec<(u64, u32)>,
    has_ended: bool,
    is_reaped: bool,
}

struct World {
    at_ns: u64,
    all: Vec<Process>,
    unheard: Vec<Event>,
    /// Who did something that is not read yet, and when.
    deeds: Vec<(usize, u64)>,
    quiet_ns: u64,
    cache: Cache,
    programs: u32,
    named: u32,
}

struct Proc<'w>(&'w mut u64, &'w [Process]);

impl Proc<'_> {
    fn of(&mut self, pid: i32) -> Option<String> {
        // Time goes on while it is read.
        *self.0 += 1;
        let process = self.1.iter().find(|p| p.pid == pid && !p.is_reaped && !p.has_ended)?;
        process.programs.last().map(|(_, program)| format!("/{program}"))
    }
}

impl Look for Proc<'_> {
    fn program(&mut self, pid: i32) -> Option<Program> {
        let exe = self.of(pid)?;
        Program::of(identity(pid, &exe), *self.0)
    }

    fn exe(&mut self, pid: i32) -> Option<(Vec<u8>, u64)> {
        let exe = self.of(pid)?;
        Some((exe.into_bytes(), *self.0))
    }
}

impl World {
    fn new() -> Self {
        let first = Process { pid: 1, parent: 0, programs: vec![(0, 0)], has_ended: false, is_reaped: false };
        Self {
            at_ns: 1,
            all: vec![first],
            unheard: Vec::new(),
            deeds: Vec::new(),
            quiet_ns: 1,
            cache: Cache::since(0),
            programs: 0,
            named: 0,
        }
    }

    fn living(&self, which: usize) -> Option<usize> {
        let living: Vec<usize> = (0..self.all.len()).filter(|i| !self.all[*i].has_ended).collect();
        (!living.is_empty()).then(|| living[which % living.len()])
    }

    fn tell(&mut self, what: What) {
        self.unheard.push(Event { at_ns: self.at_ns, what });
    }

    fn hear(&mut self) {
        for event in std::mem::take(&mut self.unheard) {
            self.cache.hear(&event, &mut Proc(&mut self.at_ns, &self.all));
        }
    }

    fn step(&mut self, step: Step) {
        self.at_ns += 1;
        match step {
            Step::Begin { from, is_sibling } => {
                let free = (1..6).find(|pid| self.all.iter().all(|p| p.pid != *pid || p.is_reaped));
                let (Some(from), Some(pid)) = (self.living(from), free) else { return };
                let of = &self.all[from];
                let parent = if is_sibling { of.parent } else { of.pid };
                let programs = vec![(self.at_ns, of.programs.last().unwrap().1)];
                self.all.push(Process { pid, parent, programs, has_ended: false, is_reaped: false });
                self.tell(What::Began { process: pid, parent });
            }
            Step::Execute(which) => {
                let Some(which) = self.living(which) else { return };
                self.programs += 1;
                self.all[which].programs.push((self.at_ns, self.programs));
                let process = self.all[which].pid;
                self.tell(What::Executed { process });
            }
            Step::End(which) => {
                let Some(which) = self.living(which).filter(|which| *which > 0) else { return };
                self.all[which].has_ended = true;
                let process = self.all[which].pid;
                self.tell(What::Ended { process });
            }
            Step::Reap(which) => {
                let ended: Vec<usize> = (0..self.all.len())
                    .filter(|i| self.all[*i].has_ended && !self.all[*i].is_reaped)
                    .collect();
                if !ended.is_empty() {
                    self.all[ended[which % ended.len()]].is_reaped = true;
                }
            }
            Step::Deed(which) => self.deeds.extend(self.living(which).map(|which| (which, self.at_ns))),
            Step::Hear => self.hear(),
            Step::Lose => {
                self.unheard.clear();
                self.cache = Cache::since(self.at_ns);
            }
            Step::Read => {
                let read_ns = self.at_ns;
                self.hear();
                for (who, at_ns) in std::mem::take(&mut self.deeds) {
                    let process = &self.all[who];
                    let named = if process.is_reaped {
                        self.cache.ended(process.pid, self.quiet_ns)
                    } else {
                        self.cache.last(process.pid)
                    };
                    let Some(exe) = named.map(|actor| actor.exe.unwrap()) else { continue };
                    self.named += 1;
                    // What it was then, or became later.
                    let then = process.programs.iter().rposition(|(since, _)| *since <= at_ns).unwrap();
                    let right: Vec<String> =
                        process.programs[then..].iter().map(|(_, program)| format!("/{program}")).collect();
                    assert!(right.contains(&exe), "{exe} did it, not {right:?}");
                }
                self.quiet_ns = read_ns;
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6usize, any::<bool>()).prop_map(|(from, sibling)| Step::Begin { from, is_sibling: sibling && from > 3 }),
        4 => (0..6usize).prop_map(Step::Execute),
        4 => (0..6usize).prop_map(Step::End),
        4 => (0..6usize).prop_map(Step::Reap),
        4 => (0..6usize).prop_map(Step::Deed),
        6 => Just(Step::Hear),
        1 => Just(Step::Lose),
        3 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn nobody_is_ever_taken_for_another(steps in proptest::collection::vec(steps(), 1..120)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
    }
}

/// As the property once found: a sibling that did something, and a copy of the parent with its number, all read late.
#[test]
fn a_sibling_is_not_taken_for_who_has_its_number_next() {
    let copy = |from| Step::Begin { from, is_sibling: false };
    let mut world = World::new();
    for step in [
        copy(0),
        Step::Execute(0),
        Step::Hear,
        Step::Begin { from: 1, is_sibling: true },
        Step::Deed(2),
        Step::End(2),
        Step::Reap(0),
        copy(0),
        Step::Read,
    ] {
        world.step(step);
    }
    assert_eq!(world.named, 0);
}

#[test]
fn the_property_names_somebody() {
    let mut world = World::new();
    for step in [
        Step::Begin { from: 0, is_sibling: false },
        Step::Hear,
        Step::Execute(1),
        Step::Hear,
        Step::Deed(1),
        Step::End(1),
        Step::Reap(0),
        Step::Read,
    ] {
        world.step(step);
    }
    assert_eq!(world.named, 1);
}
