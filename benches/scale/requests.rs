//! How many requests etcd was asked, by its own counters.

use crate::common::etcd::Etcd;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Sub;

/// Calls that nodes make whether or not anything happens.
const BACKGROUND: [&str; 3] = ["LeaseKeepAlive", "Range", "Watch"];

/// What the benchmark itself asks, many times a second, and no node ever.
const OWN: &str = "Status";

/// Calls by their gRPC method; the HTTP gateway makes one of each request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Requests(BTreeMap<String, u64>);

impl Requests {
    /// What etcd was asked since its start.
    pub fn of(etcd: &Etcd) -> Requests {
        Requests::read(&etcd.metrics())
    }

    /// What an etcd was asked that shows these counters of its own.
    pub fn read(metrics: &str) -> Requests {
        let mut requests = Requests::default();
        for line in metrics.lines() {
            // Started, not handled: a watch ends only with its connection.
            let Some(labels) = line.strip_prefix("grpc_server_started_total{") else {
                continue;
            };
            let method = labels.split("grpc_method=\"").nth(1);
            let method = method.and_then(|rest| rest.split('"').next());
            let count = labels.rsplit(' ').next().and_then(|it| it.parse().ok());
            if let (Some(method), Some(count @ 1..)) = (method.filter(|it| *it != OWN), count) {
                *requests.0.entry(method.to_owned()).or_default() += count;
            }
        }
        requests
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those of one method.
    pub fn of_method(&self, method: &str) -> u64 {
        self.0.get(method).copied().unwrap_or_default()
    }
}

impl Sub for &Requests {
    type Output = Requests;

    /// What was asked between `other` and now.
    fn sub(self, other: &Requests) -> Requests {
        let since = |(method, count): (&String, &u64)| {
            let count = count - other.of_method(method);
            (count > 0).then(|| (method.clone(), count))
        };
        Requests(self.0.iter().filter_map(since).collect())
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (method, count)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let mark = if BACKGROUND.contains(&method.as_str()) {
                " (background)"
            } else {
                ""
            };
            write!(f, "{comma}{method} {count}{mark}")?;
        }
        Ok(())
    }
}
