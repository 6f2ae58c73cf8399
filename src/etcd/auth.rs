//! Who asks: the token that etcd gives for a user's name and password.
//!
//! Owns the token, shared by all clones of a client. It is asked for when the first call needs it, and
//! again when etcd no longer takes it (its time is over, or the member was restarted); never for each call,
//! since etcd spends a tenth of a second of CPU on every password.

use super::access::{AccessError, Login};
use super::wire;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the client knows of its token.
#[derive(Clone)]
pub(super) enum Token {
    /// None was asked for yet, or the last one is of no use any more.
    Unknown,
    /// Etcd does not want to know who asks.
    NotNeeded,
    /// Sent with each call.
    Held(Arc<str>),
}

impl Token {
    fn is(&self, other: &Token) -> bool {
        match (self, other) {
            (Token::Held(one), Token::Held(other)) => Arc::ptr_eq(one, other),
            (Token::NotNeeded, Token::NotNeeded) | (Token::Unknown, Token::Unknown) => true,
            _ => false,
        }
    }
}

/// A user and the token.
pub(super) struct Session {
    login: Login,
    token: Mutex<Token>,
}

impl Session {
    /// A user without a token yet.
    ///
    /// # Errors
    /// If the password cannot be read.
    pub(super) fn new(login: Login) -> Result<Session, AccessError> {
        login.password.read()?;
        Ok(Session {
            login,
            token: Mutex::new(Token::Unknown),
        })
    }

    /// The user's name.
    pub(super) fn name(&self) -> &str {
        &self.login.name
    }

    /// The token at present.
    pub(super) fn token(&self) -> Token {
        self.lock().clone()
    }

    /// Keeps `token` for the calls to come.
    pub(super) fn keep(&self, token: Token) {
        *self.lock() = token;
    }

    /// Etcd did not take `refused`. Another thread may have a newer one: that stays.
    pub(super) fn forget(&self, refused: &Token) {
        let mut token = self.lock();
        if token.is(refused) {
            *token = Token::Unknown;
        }
    }

    /// The call that asks for a token. Its body is secret.
    pub(super) fn request(&self) -> Result<Vec<u8>, AccessError> {
        let password = self.login.password.read()?;
        Ok(wire::authenticate(&self.login.name, &password))
    }

    fn lock(&self) -> MutexGuard<'_, Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
