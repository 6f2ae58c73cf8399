//! A blocking client for etcd v3, over its HTTP/JSON gateway.
//!
//! A [`Client`] owns its connections and knows its endpoints; it may be used from any thread, one call
//! at a time each. It touches the network and its own memory, keeps no thread and never sleeps. Every
//! attempt ends within its deadline, so a call ends within the deadline times the number of endpoints.
//!
//! `wire` holds the shapes (pure), `connect` the sockets, `tls` what goes over them, `access` and `auth` who
//! asks, `ops` the values, `watch` the open watch.

mod access;
mod auth;
mod connect;
mod endpoint;
mod error;
mod ops;
mod reach;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod watch;
pub(crate) mod wire;

pub use access::{Access, AccessError, Identity, Login, Password};
pub use endpoint::{Endpoint, EndpointError, parse_endpoints};
pub use error::Error;
pub use ops::{
    Compare, Grant, Keepalive, KeyValue, MemberStatus, Newest, Op, OpReply, RangeReply, Renewal,
    Txn, TxnReply, WatchBatch, WatchEvent,
};
pub use watch::Watch;

use crate::model::types::{LeaseId, Revision, Time};
use crate::sys::clock;
use crate::telemetry::metrics::Metrics;
use auth::{Session, Token};
use connect::AddressResolver;
use reach::Reach;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tls::Tls;
use ureq::config::Config;
use ureq::http::Response;
use ureq::{Agent, Body};

const RANGE: &str = "/v3/kv/range";
const TXN: &str = "/v3/kv/txn";
const LEASE_GRANT: &str = "/v3/lease/grant";
const LEASE_KEEPALIVE: &str = "/v3/lease/keepalive";
const LEASE_LEFT: &str = "/v3/lease/timetolive";
const LEASE_REVOKE: &str = "/v3/lease/revoke";
const METRICS: &str = "/metrics";
/// More of a member's metrics than this is not read (etcd 3.4 has 100 kB).
const LONGEST_METRICS: u64 = 4 << 20;
const STATUS: &str = "/v3/maintenance/status";
const MEMBERS: &str = "/v3/cluster/member/list";
const WATCH: &str = "/v3/watch";
const AUTHENTICATE: &str = "/v3/auth/authenticate";

/// A client of one etcd cluster.
pub struct Client {
    agent: Agent,
    resolver: AddressResolver,
    endpoints: Vec<Endpoint>,
    preferred: Arc<Preferred>,
    reach: Arc<Reach>,
    timeout: Duration,
    tls: Option<Arc<Tls>>,
    session: Option<Arc<Session>>,
    metrics: Arc<Metrics>,
    reading: Arc<Mutex<Option<Reading>>>,
}

/// When etcd was asked how new it is, and its answer.
pub type Reading = (Time, Revision);

impl Clone for Client {
    /// An independent client with its own connections: a slow call of one never holds up the other. Shared
    /// are the token, the settings of TLS, the addresses of names, which endpoints have failed of late, and the last
    /// [`Client::reading`].
    fn clone(&self) -> Client {
        let clone = Client::with(
            self.endpoints.clone(),
            self.timeout,
            self.tls.clone(),
            self.session.clone(),
            self.resolver.clone(),
        );
        let clone = Client {
            reach: self.reach.clone(),
            reading: self.reading.clone(),
            ..clone.counting(self.metrics.clone())
        };
        clone.preferred.set(self.preferred.get());
        clone
    }
}

impl Client {
    /// A client that tries each of `endpoints`, by plain HTTP, for at most `timeout` a call, the first one
    /// first.
    pub fn new(endpoints: Vec<Endpoint>, timeout: Duration) -> Client {
        Client::with(endpoints, timeout, None, None, AddressResolver::default())
    }

    /// As [`Client::new`], with everything that `access` says.
    ///
    /// # Errors
    /// If a file that it names cannot be used. No connection is made yet.
    pub fn open(access: &Access, timeout: Duration) -> Result<Client, AccessError> {
        let tls = Tls::open(access)?;
        let session = access.login.clone().map(Session::new).transpose()?;
        let session = session.map(Arc::new);
        Ok(Client::with(
            access.endpoints.clone(),
            timeout,
            tls,
            session,
            AddressResolver::default(),
        ))
    }

    /// A client of that one member alone, as the same user.
    pub fn only(&self, endpoint: Endpoint) -> Client {
        Client::with(
            vec![endpoint],
            self.timeout,
            self.tls.clone(),
            self.session.clone(),
            self.resolver.clone(),
        )
    }

    fn with(
        endpoints: Vec<Endpoint>,
        timeout: Duration,
        tls: Option<Arc<Tls>>,
        session: Option<Arc<Session>>,
        resolver: AddressResolver,
    ) -> Client {
        let config = Config::builder()
            // The reply's body says what etcd has against the request.
            .http_status_as_error(false)
            // Etcd is reached directly; an HTTP_PROXY of the environment must not come between.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("wmgwd")
            .build();
        Client {
            agent: Agent::with_parts(config, tls::connector(tls.clone()), resolver.clone()),
            resolver,
            reach: Arc::new(Reach::new(endpoints.len())),
            preferred: Arc::new(Preferred::new(endpoints.len())),
            endpoints,
            timeout,
            tls,
            session,
            metrics: Arc::default(),
            reading: Arc::default(),
        }
    }

    /// The client, and every clone of it, counting in `metrics`.
    pub fn counting(self, metrics: Arc<Metrics>) -> Client {
        Client { metrics, ..self }
    }

    /// The client, with another time for each call.
    pub fn within(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// How many endpoints there are.
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.len()
    }

    /// Which endpoint has answered this client last: an index.
    pub fn endpoint_in_use(&self) -> usize {
        self.preferred.get()
    }

    /// Each endpoint that stops answering from now on, this client or any of its clones: its index.
    pub fn failures(&self) -> Receiver<usize> {
        self.reach.failures()
    }

    /// All keys that begin with `prefix` as of one revision, linearizable, however many: a call for
    /// each page of them.
    pub fn range(&self, prefix: &[u8]) -> Result<RangeReply, Error> {
        let page = |request: Vec<u8>| self.unary(RANGE, &request, wire::range_reply);
        let mut range = page(wire::range(prefix))?;
        let mut left = range.count.saturating_sub(range.kvs.len() as u64);
        while let Some(last) = range.kvs.last().filter(|_| left > 0) {
            let next = page(wire::range_after(prefix, &last.key, range.revision))?;
            if next.kvs.is_empty() {
                // Deleted meanwhile is not possible at one revision: whatever this is, it does not end.
                return Err(Error::Malformed("a page without keys"));
            }
            left = next.count.saturating_sub(next.kvs.len() as u64);
            range.kvs.extend(next.kvs);
        }
        Ok(range)
    }

    /// The keys from `first` to before `end` as of one revision, linearizable, if they fit into one reply.
    ///
    /// # Errors
    /// [`Error::Malformed`] if they do not.
    pub fn range_between(&self, first: &[u8], end: &[u8]) -> Result<RangeReply, Error> {
        let range = self.unary(RANGE, &wire::range_between(first, end), wire::range_reply)?;
        match range.count > range.kvs.len() as u64 {
            true => Err(Error::Malformed("more keys than one reply holds")),
            false => Ok(range),
        }
    }

    /// One key, linearizable.
    pub fn get(&self, key: &[u8]) -> Result<RangeReply, Error> {
        self.unary(RANGE, &wire::get(key), wire::range_reply)
    }

    /// The revision of the store, linearizable. Reads one `key`, there or not, so that it costs
    /// etcd next to nothing.
    pub fn revision(&self, key: &[u8]) -> Result<Revision, Error> {
        Ok(self.get(key)?.revision)
    }

    /// What the last [`Client::lease_renew`] of this client or a clone read, as [`Client::revision`] would have.
    pub fn reading(&self) -> Option<Reading> {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How new the keys that begin with `prefix` are, linearizable. Etcd reads and sorts all of them for that.
    pub fn newest(&self, prefix: &[u8]) -> Result<Newest, Error> {
        self.unary(RANGE, &wire::newest(prefix), wire::newest_reply)
    }

    /// Runs a transaction. If the first endpoint's answer is lost, the next one may run it once more.
    pub fn txn(&self, txn: &Txn) -> Result<TxnReply, Error> {
        self.unary(TXN, &wire::txn(txn), wire::txn_reply)
    }

    /// Grants a lease. A grant whose answer is lost leaves a lease without keys, which just ends.
    pub fn lease_grant(&self, ttl: Duration) -> Result<Grant, Error> {
        let body = wire::lease_grant(ttl);
        self.unary(LEASE_GRANT, &body, wire::lease_grant_reply)
    }

    /// Renews a lease, and has etcd's majority confirm that a leader did so.
    ///
    /// A leader that was replaced goes on renewing leases until it learns of that: for as long as its disk
    /// stalls (measured with etcd 3.4.23), while the new leader ends them. So the renewal counts only if a
    /// linearizable read of `key`, sent after the keepalive's reply, tells of the same raft term: the leader of
    /// that term still led a majority after it had renewed the lease. `key` need not exist; the user must be
    /// allowed to read it.
    ///
    /// # Errors
    /// Either call failed on every endpoint; the lease may be renewed all the same.
    pub fn lease_renew(&self, id: LeaseId, key: &[u8]) -> Result<Renewal, Error> {
        let begun = clock::now();
        let keepalive = self.lease_keepalive(id)?;
        let Some(ttl) = keepalive.ttl else {
            return Ok(Renewal::Gone);
        };
        let asked = clock::now();
        let (term, revision) = self.unary(RANGE, &wire::get(key), wire::term_reply)?;
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, revision));
        if term != keepalive.term {
            return Ok(Renewal::LeaderChanged);
        }
        if let Some(endpoint) = self.endpoints.get(self.preferred.get()) {
            let took = clock::now().since(begun);
            self.metrics.renewed(took, endpoint.to_string());
        }
        Ok(Renewal::Held(ttl))
    }

    /// Sends one keepalive of a lease. Only [`Client::lease_renew`] can tell whether it counts.
    pub fn lease_keepalive(&self, id: LeaseId) -> Result<Keepalive, Error> {
        self.each_endpoint(LEASE_KEEPALIVE, &wire::lease(id), None, |at, reply| {
            let mut line = Vec::new();
            let mut reply = BufReader::new(reply.into_body().into_reader());
            reply
                .read_until(b'\n', &mut line)
                .map_err(|error| at.failure(error.into()))?;
            if line.is_empty() {
                return Err(at.cut());
            }
            // A stream of one line. With its end, which comes at once, the connection can be used again:
            // no handshake for each keepalive. What goes wrong from here on does not undo the renewal.
            let _ = io::copy(&mut reply, &mut io::sink());
            wire::keepalive_line(&line)
        })
    }

    /// What is left of a lease, in whole seconds; `None` if it is gone.
    pub fn lease_left(&self, id: LeaseId) -> Result<Option<Duration>, Error> {
        self.unary(LEASE_LEFT, &wire::lease(id), wire::lease_left_reply)
    }

    /// Ends a lease and deletes its keys at once; a lease that is gone already is fine.
    pub fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        match self.unary(LEASE_REVOKE, &wire::lease(id), |_| Ok(())) {
            Err(Error::LeaseNotFound) => Ok(()),
            result => result,
        }
    }

    /// How the member at the endpoint is.
    pub fn status(&self) -> Result<MemberStatus, Error> {
        self.unary(STATUS, &wire::status(), wire::status_reply)
    }

    /// How many bytes the data of the member at the endpoint may take, by its metrics, if it shows them there.
    pub fn quota(&self) -> Option<u64> {
        let endpoint = self.endpoints.first()?;
        let request = self.agent.get(endpoint.url(METRICS)).config();
        let request = request.timeout_global(Some(self.timeout)).build();
        let mut reply = request.call().ok()?;
        let mut body = Vec::new();
        let mut reader = reply.body_mut().as_reader().take(LONGEST_METRICS);
        reader.read_to_end(&mut body).ok()?;
        wire::quota_metric(&body)
    }

    /// How many members of the cluster vote.
    pub fn voters(&self) -> Result<usize, Error> {
        self.unary(MEMBERS, &wire::status(), wire::voters_reply)
    }

    /// Watches the keys that begin with `prefix`, from revision `start` on, for the time of `bound`.
    /// Returns once etcd has confirmed the watch.
    pub fn watch(&self, prefix: &[u8], start: Revision, bound: Duration) -> Result<Watch, Error> {
        self.open_watch(&wire::watch(prefix, start), bound)
    }

    /// As [`Client::watch`], of the keys from `first` to before `end`.
    pub fn watch_between(
        &self,
        (first, end): (&[u8], &[u8]),
        start: Revision,
        bound: Duration,
    ) -> Result<Watch, Error> {
        self.open_watch(&wire::watch_between(first, end, start), bound)
    }

    fn open_watch(&self, request: &[u8], bound: Duration) -> Result<Watch, Error> {
        self.each_endpoint(WATCH, request, Some(bound), |at, reply| {
            let lines = reply.into_body().into_reader();
            let mut watch = Watch::new(lines, at.index, self.preferred.clone());
            match watch.confirm() {
                Err(Error::Disconnected) => Err(at.cut()),
                result => result.map(|()| watch),
            }
        })
    }

    /// A call with one reply, which is read whole.
    fn unary<T>(
        &self,
        call: &'static str,
        body: &[u8],
        parse: impl Fn(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.each_endpoint(call, body, None, |at, reply| parse(&at.body(reply)?))
    }

    /// Tries the endpoints in turn, the one that answered last first and those that have failed of late last, until
    /// one answers; each once.
    fn each_endpoint<T>(
        &self,
        call: &'static str,
        body: &[u8],
        bound: Option<Duration>,
        read: impl Fn(&Attempt, Response<Body>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let first = self.preferred.get();
        let mut failure = Error::NoEndpoint;
        for index in self.reach.order(first) {
            let begun = clock::now();
            let attempt = Attempt {
                call,
                index,
                endpoint: &self.endpoints[index],
                timeout: self.timeout,
                bound,
                begun: Instant::now(),
            };
            let result = self.attempt(&attempt, body, &read);
            let took = clock::now().since(begun);
            self.metrics
                .etcd_request(call, begun, took, result.is_err());
            match result {
                Err(error) if error.is_of_endpoint() => {
                    if let (Error::Tls { .. }, Some(tls)) = (&error, &self.tls) {
                        tls.renew();
                    }
                    self.reach.failed(index);
                    failure = error;
                }
                result => {
                    self.reach.answered(index);
                    self.preferred.set(index);
                    return result;
                }
            }
        }
        Err(failure)
    }

    /// One call at one endpoint, with a token where etcd wants one.
    fn attempt<T>(
        &self,
        attempt: &Attempt,
        body: &[u8],
        read: impl Fn(&Attempt, Response<Body>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let call = |token: &Token| {
            let reply = attempt.send(&self.agent, body, token)?;
            read(attempt, reply)
        };
        let Some(session) = &self.session else {
            return call(&Token::NotNeeded);
        };
        let mut token = session.token();
        // A keepalive needs no token, and must not wait for one.
        if matches!(token, Token::Unknown) && attempt.call != LEASE_KEEPALIVE {
            token = self.authenticate(session, attempt)?;
        } else {
            match call(&token) {
                Err(error) if error.is_of_token(attempt.call == WATCH) => session.forget(&token),
                // Some builds of etcd close the connection where they would answer an error (etcd issue 15256): one
                // new login tells whether the token was the reason.
                Err(error) if error.is_cut() && matches!(token, Token::Held(_)) => {
                    session.forget(&token);
                }
                result => return result,
            }
            token = match session.token() {
                Token::Unknown => self.authenticate(session, attempt)?,
                newer => newer,
            };
        }
        call(&token)
    }

    /// Asks for a token, within the time of `attempt`.
    fn authenticate(&self, session: &Session, attempt: &Attempt) -> Result<Token, Error> {
        let request = session
            .request()
            .map_err(|error| Error::Access(Box::new(error)))?;
        let attempt = Attempt {
            call: AUTHENTICATE,
            bound: None,
            ..*attempt
        };
        let begun = clock::now();
        let reply = attempt
            .send(&self.agent, &request, &Token::NotNeeded)
            .and_then(|reply| wire::authenticate_reply(&attempt.body(reply)?));
        let took = clock::now().since(begun);
        self.metrics
            .etcd_request(AUTHENTICATE, begun, took, reply.is_err());
        let token = match reply {
            Ok(token) => Token::Held(token.into()),
            Err(error) if error.is_auth_not_enabled() => Token::NotNeeded,
            Err(Error::Rejected { code, message }) if !error::is_of_member(code, &message) => {
                return Err(Error::Login {
                    user: session.name().to_owned(),
                    code,
                    message,
                });
            }
            Err(error) => return Err(error),
        };
        session.keep(token.clone());
        Ok(token)
    }
}

/// Which endpoint of a client is asked first: the one that answered last.
#[derive(Debug)]
struct Preferred {
    index: AtomicUsize,
    count: usize,
}

impl Preferred {
    fn new(count: usize) -> Preferred {
        Preferred {
            index: AtomicUsize::new(0),
            count,
        }
    }

    fn get(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    fn set(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Puts the next endpoint first, if `index` is.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.count.max(1);
        // Another call may have found a better one meanwhile.
        let _ = self
            .index
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// One call at one endpoint.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    call: &'static str,
    /// Which of the client's endpoints.
    index: usize,
    endpoint: &'a Endpoint,
    timeout: Duration,
    /// How long a stream may last; `None` for a call that ends within the timeout.
    bound: Option<Duration>,
    /// When the time began to run.
    begun: Instant,
}

impl Attempt<'_> {
    /// Sends the request, and takes the reply up to its headers if they do not tell of an error.
    fn send(&self, agent: &Agent, body: &[u8], token: &Token) -> Result<Response<Body>, Error> {
        // A token may have taken some of it.
        let phase = Some(self.timeout.saturating_sub(self.begun.elapsed()));
        let mut request = agent
            .post(self.endpoint.url(self.call))
            .header("Content-Type", "application/json");
        if let Token::Held(token) = token {
            request = request.header("Authorization", &**token);
        }
        let request = match self.bound {
            None => request.config().timeout_global(phase).build(),
            Some(bound) => request
                // Etcd then ends the watch when its member loses the leader, instead of going silent.
                .header("Grpc-Metadata-hasleader", "true")
                .config()
                .timeout_resolve(phase)
                .timeout_connect(phase)
                .timeout_send_request(phase)
                .timeout_send_body(phase)
                .timeout_recv_response(phase)
                .timeout_recv_body(Some(bound))
                .build(),
        };
        let reply = request.send(body).map_err(|error| self.failure(error))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let refusal = wire::refusal(&self.body(reply)?);
        Err(refusal.unwrap_or_else(|| Error::Http {
            call: self.call,
            endpoint: self.endpoint.clone(),
            status: status.as_u16(),
        }))
    }

    /// The whole body of a reply, without limit to its size.
    fn body(&self, mut reply: Response<Body>) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        reply
            .body_mut()
            .as_reader()
            .read_to_end(&mut body)
            .map_err(|error| self.failure(error.into()))?;
        Ok(body)
    }

    fn failure(&self, error: ureq::Error) -> Error {
        let endpoint = self.endpoint.clone();
        let call = self.call;
        if connect::is_deadline(&error) {
            Error::TimedOut {
                call,
                endpoint,
                after: self.timeout,
            }
        } else if let Some(advice) = tls::advice(&error) {
            Error::Tls {
                call,
                endpoint,
                advice,
                source: Box::new(error),
            }
        } else {
            Error::Transport {
                call,
                endpoint,
                source: Box::new(error),
            }
        }
    }

    /// The reply ended where there had to be more.
    fn cut(&self) -> Error {
        self.failure(ureq::Error::Io(ErrorKind::UnexpectedEof.into()))
    }
}
