//! Early detection, the daemon's part: thread `witness` acknowledges, votes and writes this node's epochs.
//!
//! It owns the [`Owner`] and the [`Voter`] and decides one thing at a time. It never waits for etcd, a disk or FRR, so
//! that an acknowledgement is sent at once: `witness_watch` reads etcd, `witness_write` writes this node's own keys,
//! `witness_vote` votes and revokes. The guard sends the beats and counts the proof; what it says goes to the
//! [`Fence`] here.

use super::adopt::Adopted;
use super::fence::Fence;
use super::lease::{DoubtSender, LeaseDoubt};
use super::witness_etcd::{Request, Watched, Writer};
use crate::etcd::Client;
use crate::gateway::Event;
use crate::guard::supervisor::Line;
use crate::model::fitness::Sign;
use crate::model::types::{Lease, LeaseId, NodeName, Revision, Time};
use crate::schema;
use crate::sys::{clock, realtime};
use crate::telemetry::log_text::{Complaint, chain, value};
use crate::telemetry::metrics::Metrics;
use crate::witness::datagram::{self, LENGTH};
use crate::witness::draw::Draw;
use crate::witness::isolation::Isolation;
use crate::witness::message::{Order, Peer, Proof, Report};
use crate::witness::owner::{self, Answer, Candidate, Owner};
use crate::witness::siphash::Key;
use crate::witness::voter::{self, Ballot, Change, Voted, Voter};
use crate::witness::{Contact, Epoch, Held, Number, PORT, Run};
use log::{debug, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, sleep};
use std::time::Duration;

/// How many datagrams are read in a row: a flood must not delay what else is due.
const GULP: usize = 64;
/// How soon an address that cannot be bound, or is not known, is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(2);
/// How soon a contact is published again that etcd did not take: this node is not registered yet.
const PUBLISH_AGAIN: Duration = Duration::from_millis(250);
/// The longest wait: a guard that was replaced is noticed by then.
const GLANCE: Duration = Duration::from_millis(500);
/// How often a lost proof is told at most, or a late guard.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How long the guard may take to say that there is no proof any more, when the node leaves.
const SILENT: Duration = Duration::from_millis(300);

/// Where beats are received: known, or found when it is asked for.
pub type Locate = Box<dyn FnMut() -> Option<SocketAddr> + Send>;

/// What the thread is made of.
pub struct Parts {
    /// This node.
    pub me: NodeName,
    /// What it is.
    pub role: Role,
    /// The lease that was asked for lasts so long.
    pub ttl: Duration,
    /// Where beats are received.
    pub locate: Locate,
    /// For etcd; no call of it may take long.
    pub client: Client,
    /// The proof.
    pub fence: Arc<Fence>,
    /// Who gives the lease up when the node is evicted.
    pub doubts: DoubtSender,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told whether this node alone is cut off; `None` where nothing follows from that.
    pub events: Option<Sender<Event>>,
    /// What is taken over from the run before.
    pub adopted: Option<Adopted>,
    /// Whether it may be ahead of other programs: not where mock nodes share a machine.
    pub is_real: bool,
}

/// What a node is for early detection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It serves VNIs. An acknowledged beat proves it so long; zero: it names no witness, and is none.
    Gateway {
        /// How long.
        window: Duration,
    },
    /// It serves nothing, and has no guard: its lease alone proves it, up to `margin` before its end.
    Witness {
        /// How long.
        margin: Duration,
    },
}

impl Role {
    fn window(self) -> Duration {
        match self {
            Role::Gateway { window } => window,
            Role::Witness { .. } => Duration::ZERO,
        }
    }

    fn acknowledges(self) -> bool {
        self != Role::Gateway {
            window: Duration::ZERO,
        }
    }

    fn has_guard(self) -> bool {
        matches!(self, Role::Gateway { .. })
    }
}

/// The running thread.
pub struct Handle {
    post: Post,
}

/// What happened.
pub enum Input {
    /// etcd was read.
    Watched(Watched),
    /// etcd answered to an epoch.
    Epoch(Number, Answer),
    /// Whether etcd has taken a contact; `None` if it has not answered.
    Contact(Option<bool>),
    /// etcd answered to a vote.
    Voted(Ballot, Voted),
    /// The node leaves: it ends its proof, and says so.
    Leave(Sender<()>),
}

/// Where the thread is told what happened.
#[derive(Clone)]
pub struct Post {
    inbox: Sender<Input>,
    wake: Arc<UnixStream>,
}

impl Post {
    /// Tells the thread, and wakes it.
    pub fn send(&self, input: Input) {
        // The thread is gone only when the process ends. A full socket wakes it as well.
        let _ = self.inbox.send(input);
        let _ = (&*self.wake).write(&[0]);
    }
}

impl Handle {
    /// Ends the proof of this node, and says so in etcd, so that no other node has to wait for it. To be called once
    /// everything is withdrawn, and before the lease is revoked: from then on nothing is acknowledged under it.
    pub fn leave(self) {
        let (done, is_done) = channel();
        self.post.send(Input::Leave(done));
        let _ = is_done.recv();
    }
}

/// Starts the threads. They end with the process.
///
/// # Errors
/// A thread cannot be started, or there is no randomness.
pub fn spawn(parts: Parts) -> io::Result<Handle> {
    let (inbox, receiver) = channel();
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let post = Post {
        inbox,
        wake: Arc::new(wake),
    };
    let writer = Writer::new(&parts.client, &post);
    writer.watch()?;
    let writes = writer.spawn("witness_write")?;
    let votes = writer.spawn("witness_vote")?;
    let mut random = File::open("/dev/urandom")?;
    let mut bytes = [0; 32];
    random.read_exact(&mut bytes)?;
    let number = |at: usize| {
        let word = bytes[at..at + 8].iter();
        word.fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    let (run, mut draw) = (Run(number(0)), Draw::new(number(8)));
    let known = parts
        .adopted
        .as_ref()
        .and_then(|adopted| adopted.known.as_ref());
    let key = known.map(|known| known.key);
    let key = key.unwrap_or_else(|| {
        let mut key = [0; 16];
        key.copy_from_slice(&bytes[16..]);
        Key(key)
    });
    let thread = Thread {
        owner: Owner::new(parts.me.clone(), key, parts.role.window(), draw.number()),
        draw,
        voter: Voter::new(parts.me.clone(), run, key),
        run,
        key,
        parts,
        inbox: receiver,
        woken,
        writes,
        votes,
        socket: None,
        bind_at: Time::default(),
        guard_count: 0,
        line: None,
        line_fd: None,
        lease: None,
        is_over: None,
        published: None,
        refused_since: None,
        publish_at: Time::default(),
        is_publishing: false,
        peers: Vec::new(),
        peers_are_told: false,
        isolation: Isolation::default(),
        is_cut_off: false,
        troubles: None,
        lost_told: None,
        late_told: None,
        is_leaving: false,
        complaint: Complaint::default(),
    };
    Builder::new()
        .name("witness".to_owned())
        .spawn(move || thread.run())?;
    Ok(Handle { post })
}

/// What there is to read.
#[derive(Clone, Copy)]
struct Ready {
    woken: bool,
    beats: bool,
    guard: bool,
}

struct Thread {
    parts: Parts,
    owner: Owner,
    voter: Voter,
    run: Run,
    key: Key,
    inbox: Receiver<Input>,
    woken: UnixStream,
    writes: Sender<Request>,
    votes: Sender<Request>,
    /// Where beats come in, and their address.
    socket: Option<(UdpSocket, SocketAddr)>,
    bind_at: Time,
    guard_count: u64,
    line: Option<Line>,
    line_fd: Option<OwnedFd>,
    /// The lease that the owner has begun with.
    lease: Option<LeaseId>,
    /// One that it has ended, and does not begin with again.
    is_over: Option<LeaseId>,
    /// For the number of another run.
    draw: Draw,
    /// The lease that etcd has this run's contact on, as far as was read.
    published: Option<LeaseId>,
    /// etcd has refused the contact all the time since.
    refused_since: Option<Time>,
    publish_at: Time,
    is_publishing: bool,
    peers: Vec<Peer>,
    peers_are_told: bool,
    isolation: Isolation,
    is_cut_off: bool,
    /// How often the guard has lost its proof, and how often it was late, when it said so last.
    troubles: Option<(u64, u64)>,
    lost_told: Option<Time>,
    late_told: Option<Time>,
    is_leaving: bool,
    complaint: Complaint,
}

impl Thread {
    fn run(mut self) {
        if self.parts.is_real
            && let Err(error) = realtime::raise()
        {
            info!(
                "no real-time priority, so that a busy machine may delay acknowledgements and beats: {error}"
            );
        }
        if let Some(adopted) = self.parts.adopted.take() {
            self.begin(adopted.lease, adopted.epochs);
        }
        loop {
            let ready = self.wait();
            if ready.woken {
                let mut bytes = [0; 256];
                while matches!(self.woken.read(&mut bytes), Ok(read) if read == bytes.len()) {}
                while let Ok(input) = self.inbox.try_recv() {
                    self.take(input);
                }
            }
            self.turn(ready);
        }
    }

    /// All but what comes from other threads.
    fn turn(&mut self, ready: Ready) {
        let is_another = self.guard_count != self.parts.fence.guard_count();
        if ready.guard || is_another || self.line.as_ref().is_none_or(Line::has_news) {
            self.follow_guard();
        }
        self.follow_lease();
        self.look_at_proof();
        if ready.beats {
            self.answer();
        }
        self.act();
        self.look_at_proof();
    }

    fn wait(&self) -> Ready {
        let now = clock::now();
        let due = self
            .owner
            .deadline(now)
            .min(self.voter.deadline().unwrap_or(now + GLANCE));
        let mut wait = due.since(now).min(GLANCE);
        if self.line.is_none() && self.parts.role.has_guard() {
            wait = wait.min(Duration::from_millis(20));
        }
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        if let Some((socket, _)) = &self.socket {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        let line = fds.len();
        // Its end is always heard of.
        let needs_news = self.owner.needs_news(now);
        let news = match needs_news {
            true => PollFlags::POLLIN,
            false => PollFlags::empty(),
        };
        if let Some(line) = &self.line_fd {
            fds.push(PollFd::new(line.as_fd(), news));
        }
        let millis = (wait + Duration::from_micros(999)).as_millis();
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) => {
                let is_ready = |fds: &[PollFd]| fds.iter().any(|fd| fd.any().unwrap_or(true));
                Ready {
                    woken: is_ready(&fds[..1]),
                    beats: is_ready(&fds[1..line]),
                    // What is not waited for is read before anything is decided.
                    guard: !needs_news || is_ready(&fds[line..]),
                }
            }
            Err(error) => {
                if error != nix::errno::Errno::EINTR {
                    // Short of memory.
                    sleep(Duration::from_millis(10));
                }
                Ready {
                    woken: true,
                    beats: true,
                    guard: true,
                }
            }
        }
    }

    // The guard.

    fn follow_guard(&mut self) {
        if self.line.is_none() || self.guard_count != self.parts.fence.guard_count() {
            self.meet_guard();
        }
        let Some(line) = &self.line else {
            return;
        };
        let Some(heard) = line.hear() else {
            // The thread `guard_check` replaces it.
            self.line = None;
            self.line_fd = None;
            return;
        };
        let now = clock::now();
        for report in heard.reports {
            if let Report::Proof(proof) = &report {
                self.parts.fence.prove(proof);
                self.tell_troubles(now, proof);
                self.parts.metrics.beats_were_late(proof.late);
                let traffic = &proof.traffic;
                self.parts
                    .metrics
                    .guard_traffic(traffic.sent, traffic.answers, traffic.dropped);
                self.parts.metrics.proof(proof.lowest, proof.lateness);
            }
            self.owner.report(now, report);
        }
        if heard.silenced {
            self.parts.fence.was_silenced();
        }
    }

    fn meet_guard(&mut self) {
        let (count, line) = self.parts.fence.line();
        let Some(line) = line else {
            return;
        };
        let Some(fd) = line.conn() else {
            return;
        };
        self.guard_count = count;
        self.line_fd = Some(fd);
        self.peers_are_told = false;
        self.troubles = None;
        if let Some((_, address)) = &self.socket {
            line.send_from(address.ip());
        }
        self.line = Some(line);
        let lease = self.parts.fence.lease();
        let held = lease.filter(|lease| self.lease == Some(lease.id));
        if let Some(act) = held.and_then(|lease| self.owner.tell_guard(lease)) {
            self.owner_act(act);
        }
    }

    /// Why the window is doubled, each reason once in a while.
    fn tell_troubles(&mut self, now: Time, proof: &Proof) {
        let before = self.troubles.replace((proof.losses, proof.late));
        let Some((losses, late)) = before else {
            return;
        };
        let is_news = |told: &mut Option<Time>| {
            let was_told = told.is_some_and(|at| now.since(at) < TELL_AGAIN);
            if !was_told {
                *told = Some(now);
            }
            !was_told
        };
        if proof.losses > losses && is_news(&mut self.lost_told) {
            warn!(
                "too few witnesses acknowledged in time: no ARP request was answered for a moment, and the window of \
                 early detection is doubled for a while"
            );
        }
        if proof.late > late && is_news(&mut self.late_told) {
            info!(
                "the guard was late to send beats, as it got no CPU: the window of early detection is doubled for a while"
            );
        }
    }

    // The lease.

    fn follow_lease(&mut self) {
        let lease = self.parts.fence.lease();
        let id = lease.map(|lease| lease.id);
        if self.lease.is_some() && self.lease != id {
            self.let_go();
        }
        let is_new = self.lease.is_none() && id != self.is_over && !self.is_leaving;
        if let Some(lease) = lease.filter(|_| is_new)
            && self.published == id
        {
            self.begin(lease, (None, None));
        }
    }

    fn begin(&mut self, lease: Lease, epochs: owner::Epochs) {
        self.lease = Some(lease.id);
        self.peers_are_told = false;
        let act = self
            .owner
            .begin(clock::now(), lease, self.parts.ttl, epochs);
        if let Some(act) = act {
            self.owner_act(act);
        }
        if self.parts.role.acknowledges() {
            self.voter.set_lease(Some(lease.id));
        }
    }

    /// First of all, nothing is acknowledged any more.
    fn let_go(&mut self) {
        self.voter.set_lease(None);
        self.is_over = self.lease.take().or(self.is_over);
        if let Some(act) = self.owner.let_go() {
            self.owner_act(act);
        }
    }

    fn look_at_proof(&mut self) {
        let until = match self.parts.role {
            Role::Gateway { .. } => self.owner.proof_until(),
            Role::Witness { margin } => {
                let lease = self.parts.fence.lease();
                let held = lease.filter(|lease| self.lease == Some(lease.id));
                held.map_or(Time::default(), |lease| lease.valid_until - margin)
            }
        };
        self.voter.set_proof(until, self.owner.revision());
    }

    // Datagrams.

    fn answer(&mut self) {
        let Some((socket, _)) = &self.socket else {
            return;
        };
        // One byte more than a datagram has: what is longer is none.
        let mut bytes = [0; LENGTH + 1];
        for _ in 0..GULP {
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) => {
                    let answer = self.voter.receive(clock::now(), &bytes[..length]);
                    self.parts.metrics.beat_received(answer.is_some());
                    if let Some(answer) = answer {
                        // One that is lost is followed by the next.
                        let _ = socket.send_to(&answer, from);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That of an earlier datagram, which was refused on its way (udp(7)).
                Err(_) => {}
            }
        }
    }

    fn bind(&mut self, now: Time) {
        let is_due = self.socket.is_none() && now >= self.bind_at;
        if !is_due || !self.parts.role.acknowledges() {
            return;
        }
        self.bind_at = now + BIND_AGAIN;
        let Some(address) = (self.parts.locate)() else {
            if self.complaint.raise("no address") {
                warn!(
                    "early detection is off until a VXLAN interface of the range has a local address; \
                     or name one with --beat-address"
                );
            }
            return;
        };
        let bound = UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        match bound {
            Ok((socket, address)) => {
                self.complaint.settle();
                debug!("beats are received at {address}");
                if let Some(line) = &self.line {
                    line.send_from(address.ip());
                }
                self.socket = Some((socket, address));
            }
            Err(error) => {
                if self.complaint.raise(&error.to_string()) {
                    warn!("early detection is off: cannot receive beats at {address}: {error}");
                }
            }
        }
    }

    // What is due.

    fn act(&mut self) {
        let now = clock::now();
        self.bind(now);
        self.publish(now);
        if self.lease.is_some() && !self.is_leaving {
            self.tell_peers();
            self.owner.silences_in(self.parts.fence.silencing());
            for act in self.owner.act(now) {
                self.owner_act(act);
            }
        }
        for act in self.voter.act(now) {
            self.voter_act(act);
        }
        self.look_at_isolation(now);
        let epoch = self.owner.epoch().filter(|_| self.lease.is_some());
        let (count, window) = epoch.map_or((0, Duration::ZERO), |epoch| {
            (epoch.witnesses.len(), epoch.window)
        });
        self.parts.metrics.witnesses(count, window);
    }

    /// Tells when this node alone is cut off, and when it is not any more. What it heard under a lease that ended says
    /// nothing: the others have dropped it with the lease.
    fn look_at_isolation(&mut self, now: Time) {
        let Some(events) = self.parts.events.as_ref() else {
            return;
        };
        if self.lease.is_none() {
            self.isolation = Isolation::default();
        }
        let (heard, patience) = (self.owner.newest_heard(), self.owner.patience());
        let goes_on = |since| self.voter.others_go_on(since);
        let is_cut_off = self.isolation.look(now, heard, patience, goes_on);
        if is_cut_off == self.is_cut_off {
            return;
        }
        self.is_cut_off = is_cut_off;
        let sign = Sign::Beats;
        match is_cut_off {
            true => info!(
                "sign={sign} is bad: no other node acknowledges this node's beats, and others acknowledge each other's"
            ),
            false => info!("sign={sign} is not bad any more"),
        }
        // The worker is gone only when the process ends.
        let _ = events.send(Event::CutOff(is_cut_off));
    }

    /// What this run publishes.
    fn contact(&self) -> Option<Contact> {
        let (_, address) = self.socket.as_ref()?;
        Some(Contact {
            run: self.run,
            key: self.key,
            address: *address,
        })
    }

    fn publish(&mut self, now: Time) {
        let Some(contact) = self.contact() else {
            return;
        };
        let id = self.parts.fence.lease().map(|lease| lease.id);
        let is_wanted = id != self.published && id != self.is_over && !self.is_leaving;
        let is_due = is_wanted && !self.is_publishing && now >= self.publish_at;
        let Some(lease) = id.filter(|_| is_due) else {
            return;
        };
        self.publish_at = now + PUBLISH_AGAIN;
        self.is_publishing = true;
        let txn = match self.parts.role {
            Role::Gateway { .. } => {
                schema::witness::publish_contact(&self.parts.me, lease, &contact)
            }
            Role::Witness { .. } => {
                schema::witness::publish_witness(&self.parts.me, lease, &contact)
            }
        };
        let _ = self.writes.send(Request::Contact(txn));
    }

    /// What became of the contact.
    fn contact_written(&mut self, now: Time, is_taken: Option<bool>) {
        self.is_publishing = false;
        let is_refused = is_taken == Some(false);
        let since = is_refused.then(|| self.refused_since.unwrap_or(now));
        self.refused_since = since;
        // The contact of a run before goes with its lease.
        let is_late = since.is_some_and(|since| now.since(since) > 2 * self.parts.ttl);
        if is_late && !self.parts.role.has_guard() && self.complaint.raise("name") {
            warn!(
                "the name {} is that of another node: choose another --name",
                value(self.parts.me.as_str())
            );
        }
    }

    /// Which contact of this node etcd has. One that was this run's and went while its lease lives was removed by hand:
    /// other nodes may count this run as gone, so it acknowledges nothing any more, and another begins.
    fn see_contact(&mut self) {
        let in_etcd = self.voter.contact_of(&self.parts.me);
        let ours = self.contact();
        let is_ours = |(lease, contact)| (Some(contact) == ours).then_some(lease);
        let published = in_etcd.and_then(is_ours);
        if self.lease.is_some() && self.published == self.lease && published != self.lease {
            self.run = Run(self.draw.number());
            self.voter.begin_run(self.run);
        }
        self.published = published;
    }

    fn tell_peers(&mut self) {
        if self.peers_are_told || self.line.is_none() {
            return;
        }
        let nodes = self.voter.nodes();
        let candidates = nodes.map(|(name, lease, contact)| {
            let run = contact.run;
            (name.clone(), Candidate { lease, run })
        });
        let candidates: BTreeMap<NodeName, Candidate> = candidates.collect();
        self.owner.candidates(candidates);
        let tried: BTreeSet<NodeName> = self.owner.tried().into_iter().collect();
        let nodes = self.voter.nodes();
        let peers = nodes.map(|(name, lease, contact)| Peer {
            lease,
            run: contact.run,
            link: datagram::link_key(&self.key, &contact.key),
            address: contact.address,
            trial: tried.contains(name),
        });
        self.peers = peers.collect();
        self.peers_are_told = true;
        self.tell(&Order::Peers(self.peers.clone()));
    }

    fn tell(&self, order: &Order) {
        self.parts.fence.tell(self.line.as_ref(), order);
    }

    fn owner_act(&mut self, act: owner::Act) {
        match act {
            owner::Act::Tell(order) => {
                if let Order::Propose(epoch) = &order {
                    debug!(
                        "epoch={:016x} window={:?} witnesses={}",
                        epoch.number.0,
                        epoch.window,
                        names(epoch)
                    );
                }
                self.tell(&order);
            }
            owner::Act::Write { epoch, condition } => {
                let txn = schema::witness::write_epoch(&self.parts.me, &epoch, condition);
                let _ = self.writes.send(Request::Epoch(epoch.number, txn));
            }
            owner::Act::LetGo(lease) => {
                self.voter.set_lease(None);
                self.lease = None;
                self.is_over = Some(lease);
                self.parts.metrics.evicted();
                warn!(
                    "lease={lease} this node is evicted: its witnesses have not heard its beats for too long, or it \
                     has not heard of them; everything is withdrawn until there is a new lease"
                );
                self.parts.doubts.send(LeaseDoubt::Evicted(lease));
            }
        }
    }

    fn voter_act(&mut self, act: voter::Act) {
        match act {
            voter::Act::Vote(ballot) => {
                self.parts.metrics.voted();
                let txn = schema::witness::write_vote(&self.parts.me, &ballot);
                let _ = self.votes.send(Request::Vote(Box::new(ballot), txn));
            }
            voter::Act::Revoke(lease) => drop(self.votes.send(Request::Revoke(lease))),
        }
    }

    // What other threads say.

    fn take(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Watched(watched) => self.watched(now, watched),
            Input::Epoch(number, answer) => {
                let before = self.owner.epoch().map(|epoch| epoch.number);
                for act in self.owner.answer(now, number, answer) {
                    self.owner_act(act);
                }
                self.tell_epoch(before);
            }
            Input::Contact(is_taken) => self.contact_written(now, is_taken),
            Input::Voted(ballot, voted) => {
                if voted == Voted::Evicted {
                    info!(
                        "node={} evicted: it does not beat any more; its VNIs are free",
                        value(ballot.owner.as_str())
                    );
                }
                if let Some(act) = self.voter.voted(&ballot, voted) {
                    self.voter_act(act);
                }
            }
            Input::Leave(done) => {
                self.leave();
                let _ = done.send(());
            }
        }
    }

    fn tell_epoch(&self, before: Option<Number>) {
        let epoch = self.owner.epoch();
        if epoch.map(|epoch| epoch.number) == before {
            return;
        }
        let Some(epoch) = epoch else {
            return;
        };
        match epoch.witnesses.is_empty() {
            true => info!("no witness proves this node: its lease alone decides"),
            false => info!(
                "witnesses={} window={:?}: they end this node's lease early if it is dead",
                names(epoch),
                epoch.window
            ),
        }
    }

    fn watched(&mut self, now: Time, watched: Watched) {
        let me = &self.parts.me;
        let mut has_nodes = watched.whole;
        // What is not in the whole is gone.
        let mut own = watched.whole.then_some(None);
        for change in &watched.changes {
            match change {
                Change::Contact(..) => has_nodes = true,
                Change::Epoch(name, held) if name == me => own = Some(held.clone()),
                Change::Epoch(..) => {}
            }
        }
        if let Some(held) = own.filter(|_| self.lease.is_some()) {
            self.see_own(watched.revision, held);
        }
        self.voter.read(now, watched.changes, watched.whole);
        if has_nodes {
            self.peers_are_told = false;
            self.see_contact();
        }
        self.follow_lease();
    }

    fn see_own(&mut self, revision: Revision, held: Option<Held>) {
        let held = match &held {
            None => None,
            Some((_, lease, Some(standing))) => Some((*lease, standing)),
            // Another program wrote over it: the next epoch is refused, and that tells.
            Some((_, _, None)) => return,
        };
        for act in self.owner.seen(revision, held) {
            self.owner_act(act);
        }
    }

    // The end.

    fn leave(&mut self) {
        self.is_leaving = true;
        let lease = self.lease;
        let revision = self.owner.revision();
        self.let_go();
        if lease.is_none() || revision == Revision(0) {
            return;
        }
        let begun = clock::now();
        // It has said so before the others need not wait any more.
        while self.line.is_some()
            && self.owner_has_proof(lease)
            && clock::now().since(begun) < SILENT
        {
            sleep(Duration::from_millis(1));
            self.follow_guard();
        }
        if self.line.is_none() || self.owner_has_proof(lease) {
            return;
        }
        let txn = schema::witness::write_released(&self.parts.me, revision);
        if let Err(error) = self.parts.client.txn(&txn) {
            debug!("cannot release the epoch: {}", chain(&error));
        }
    }

    /// Whether the guard has not said yet that there is no proof under `lease` any more.
    fn owner_has_proof(&self, lease: Option<LeaseId>) -> bool {
        self.owner.reported_until(lease) > Time::default()
    }
}

/// The names of an epoch's witnesses, as the log has them.
fn names(epoch: &Epoch) -> String {
    let names = epoch.witnesses.iter().map(|it| value(it.name.as_str()));
    names.collect::<Vec<_>>().join(",")
}

/// How long a call to an endpoint of etcd may take, if others may take `longest`: all of it is repeated. Where there is
/// another endpoint, that of a dead gateway must not cost more than half of the usual window.
pub fn call_timeout(client: &Client, longest: Duration) -> Duration {
    longest.min(match client.endpoint_count() {
        1 => Duration::from_millis(500),
        _ => Duration::from_millis(250),
    })
}

/// The address of `--beat-address`, or else the one that VXLAN packets come from.
pub fn locate(
    given: Option<(IpAddr, u16)>,
    find: impl FnMut() -> Option<IpAddr> + Send + 'static,
) -> Locate {
    let mut find = find;
    Box::new(move || match given {
        Some((address, port)) => Some(SocketAddr::new(address, port)),
        None => Some(SocketAddr::new(find()?, PORT)),
    })
}
