//! Certificates, made when they are needed. With a library and not with the openssl program: days in the past
//! need no version of its own, and the tests need no further package.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// An authority and the directory of everything that it has issued, which goes away with it.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority of its own.
    pub fn new() -> Authority {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wmgwd-ca-{}-{next}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, &name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join("ca.pem"), certificate.pem()).unwrap();
        Authority {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub fn cacert(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A certificate for 127.0.0.1, for servers and clients, valid on the `days` counted from today.
    pub fn issue(&self, name: &str, days: Range<i64>) -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let file = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        // No common name: with passwords, etcd's JSON gateway takes no certificate of a client that has one.
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = std::time::SystemTime::now();
        let seconds = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let today = i64::try_from(seconds / 86_400).unwrap();
        let day = |from_today: i64| {
            let epoch = date_time_ymd(1970, 1, 1);
            let days = u64::try_from(today + from_today).unwrap();
            epoch + std::time::Duration::from_secs(days * 86_400)
        };
        (params.not_before, params.not_after) = (day(days.start), day(days.end));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            cert: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}.key")),
        };
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
