//! Random and mutated bytes: whatever arrives, a parser returns.

use super::*;

/// Sebastiano Vigna's splitmix64, for bytes that can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Nothing that arrives makes a parser panic.
fn feed(bytes: &[u8]) {
    let _ = range_reply(bytes);
    let _ = newest_reply(bytes);
    let _ = txn_reply(bytes);
    let _ = lease_grant_reply(bytes);
    let _ = keepalive_line(bytes);
    let _ = watch_line(bytes);
    let _ = refusal(bytes);
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let mut random = Random(1);
    for _ in 0..20_000 {
        let length = random.below(64);
        let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        feed(&noise);
    }
    let valid = [
        reply(
            r#","kvs":[{"key":"L2E=","create_revision":"2","mod_revision":"6","lease":"7"}],"more":true,"count":"2""#,
        ),
        reply(
            r#","succeeded":true,"responses":[{"response_put":{}},{"response_txn":{"responses":[{"response_delete_range":{"deleted":"1"}}]}},{"response_range":{"count":"0"}}]"#,
        ),
        reply(r#","ID":"5685691186863862534","TTL":"2""#),
        line(r#","ID":"123","TTL":"10""#),
        line(
            r#","events":[{"type":"DELETE","kv":{"key":"L2I=","mod_revision":"6"}},{"kv":{"key":"L2I=","mod_revision":"6","value":"MQ=="}}]"#,
        ),
        line(r#","canceled":true,"compact_revision":"5""#),
        br#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#.to_vec(),
    ];
    // What JSON and base64 are made of finds more than bytes by chance do.
    let pieces: [&[u8]; 12] = [
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"null",
        b"-1",
        b"1e400",
        b"=",
        b"\\u0000",
        b"99999999999999999999",
    ];
    for round in 0..40_000 {
        let mut bytes = valid[round % valid.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.remove(at)),
                _ => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied())),
            }
            if bytes.is_empty() {
                break;
            }
        }
        feed(&bytes);
    }
}
