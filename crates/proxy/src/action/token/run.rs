//! What the token endpoints answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluice_http::{Body, Method, NameId, Request, Response, ResponseHead};

use super::ask::{Ask, Refused};
use super::{Endpoint, Loaded, Token};
use crate::consumer::{Consumer, identify};
use crate::credentials::Claim;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::scene::Scene;
use crate::token::{Rejected, Rules, Signing, Unverified, random_id};

/// The type of access tokens (RFC 9068 section 2.1).
const ACCESS: (&str, &str) = ("", "at+jwt");
const REFRESH: (&str, &str) = (MARK, "refresh+jwt");

/// What stands before a refresh token and is signed with it: it is no token that a filter takes, with or without.
const MARK: &str = "rt.";

/// Seconds since 1970.
type Unix = u64;

impl Token {
    /// Answers a request.
    ///
    /// # Errors
    /// Another method than the endpoint has; 403 for a consumer that may not come in; too many passwords wait.
    pub async fn run(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response, Failure> {
        let loaded = self.loaded.as_ref().ok_or(Failure::Internal)?;
        let reads = matches!(request.head.method, Method::Get | Method::Head);
        let posts = request.head.method == Method::Post;
        let (fits, allow) = match self.endpoint {
            Endpoint::Keys => (reads, "GET, HEAD"),
            Endpoint::Token => (reads || posts, "GET, HEAD, POST"),
            Endpoint::Introspect | Endpoint::Revoke => (posts, "POST"),
        };
        if !fits {
            exchange.allow = allow.into();
            return Err(Failure::MethodNotAllowed);
        }
        if self.endpoint == Endpoint::Keys {
            return Ok(keys(loaded));
        }
        let now = scene.world.unix(exchange.started).as_secs();
        let ask = match Ask::read(request).await {
            Ok(ask) => ask,
            Err(refused) => return Ok(refuse(refused)),
        };
        // Nothing but its own token: it wants to know what that is worth.
        if self.endpoint == Endpoint::Token
            && let Some(token) = ask.bearer.as_ref().filter(|_| ask.parameter("grant_type").is_none())
        {
            return Ok(self.worth(loaded, token, now).await.map_or_else(refuse, |worth| answer(200, &worth)));
        }
        let consumer = match self.client(loaded, &ask, exchange).await? {
            Ok(consumer) => consumer,
            Err(refused) => return Ok(refuse(refused)),
        };
        identify(exchange, &consumer)?;
        let answered = match self.endpoint {
            Endpoint::Introspect => match ask.parameter("token") {
                Some(token) => self.worth(loaded, token, now).await,
                None => Err(Refused::InvalidRequest),
            },
            Endpoint::Revoke => self.revoke(loaded, &ask, (&consumer, now)).await,
            Endpoint::Token | Endpoint::Keys => self.grant(loaded, &ask, (&consumer, now)).await,
        };
        Ok(match answered {
            Ok(value) => answer(200, &value),
            Err(refused) => refuse(refused),
        })
    }

    /// The consumer that asks. The outer failure says that its password could not be checked.
    async fn client(
        &self,
        loaded: &Loaded,
        ask: &Ask,
        exchange: &Exchange,
    ) -> Result<Result<Arc<Consumer>, Refused>, Failure> {
        let Some((name, secret)) = &ask.client else { return Ok(Err(Refused::InvalidClient)) };
        let consumers = &loaded.consumers;
        if let Some(consumer) = consumers.by_key(secret.as_bytes()).filter(|one| *one.name == **name) {
            return Ok(Ok(Arc::clone(consumer)));
        }
        let claim = Claim { user: name, password: secret.as_bytes() };
        match loaded
            .verifier
            .admit(consumers.users(), claim, (exchange.started, exchange.client.address.into()))
            .await
        {
            Ok(user) => Ok(consumers.by_user(&user).map(Arc::clone).ok_or(Refused::InvalidClient)),
            Err(Failure::Unauthenticated) => Ok(Err(Refused::InvalidClient)),
            Err(failure) => Err(failure),
        }
    }

    async fn grant(
        &self,
        loaded: &Loaded,
        ask: &Ask,
        (consumer, now): (&Arc<Consumer>, Unix),
    ) -> Result<Value, Refused> {
        match ask.parameter("grant_type").ok_or(Refused::InvalidRequest)? {
            "client_credentials" => {
                let scope = self.scope(ask.parameter("scope"), &self.scopes)?;
                self.issue(loaded, consumer, &scope, now)
            }
            "refresh_token" => {
                let token = ask.parameter("refresh_token").ok_or(Refused::InvalidRequest)?;
                let claims = self.read(loaded, token, now).await?.ok_or(Refused::InvalidGrant)?;
                let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
                if text("sub") != &*consumer.name || text("use") != "refresh" {
                    return Err(Refused::InvalidGrant);
                }
                let granted: Vec<String> = text("scope").split_whitespace().map(str::to_owned).collect();
                let scope = self.scope(ask.parameter("scope"), &granted)?;
                // It is of use once: whoever comes with it again has stolen it, or lost what it was used for.
                if !take_back(loaded, &claims, now).await? {
                    return Err(Refused::InvalidGrant);
                }
                self.issue(loaded, consumer, &scope, now)
            }
            _ => Err(Refused::UnsupportedGrant),
        }
    }

    /// What of `allowed` is given.
    fn scope(&self, asked: Option<&str>, allowed: &[String]) -> Result<String, Refused> {
        let Some(asked) = asked else { return Ok(allowed.join(" ")) };
        match asked.split_whitespace().all(|scope| allowed.iter().any(|one| one == scope)) {
            true => Ok(asked.split_whitespace().collect::<Vec<_>>().join(" ")),
            false => Err(Refused::InvalidScope),
        }
    }

    fn issue(&self, loaded: &Loaded, consumer: &Consumer, scope: &str, now: Unix) -> Result<Value, Refused> {
        let claims = |ttl: u64| -> Option<Map<String, Value>> {
            let mut claims = Map::new();
            claims.insert("iss".to_owned(), self.issuer.as_str().into());
            claims.insert("sub".to_owned(), (*consumer.name).into());
            claims.insert("client_id".to_owned(), (*consumer.name).into());
            claims.insert("iat".to_owned(), now.into());
            claims.insert("exp".to_owned(), (now + ttl).into());
            claims.insert("jti".to_owned(), random_id()?.into());
            if !scope.is_empty() {
                claims.insert("scope".to_owned(), scope.into());
            }
            Some(claims)
        };
        // Without random numbers or a signature nothing can be issued; both never fail in practice.
        let failed = Refused::InvalidRequest;
        let mut access = claims(self.ttl).ok_or(failed)?;
        match &*self.audience {
            [] => {}
            [one] => _ = access.insert("aud".to_owned(), one.as_str().into()),
            several => _ = access.insert("aud".to_owned(), several.into()),
        }
        let token = loaded.ring.token(ACCESS, &access).ok_or(failed)?;
        let mut answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": self.ttl });
        if !scope.is_empty() {
            answer["scope"] = scope.into();
        }
        if let Some(ttl) = self.refresh_ttl {
            let mut refresh = claims(ttl).ok_or(failed)?;
            refresh.insert("use".to_owned(), "refresh".into());
            let token = loaded.ring.token(REFRESH, &refresh).ok_or(failed)?;
            answer["refresh_token"] = token.into();
        }
        Ok(answer)
    }

    /// The claims of a token of ours that is valid; `None`: it is not.
    async fn read(
        &self,
        loaded: &Loaded,
        token: &str,
        now: Unix,
    ) -> Result<Option<Map<String, Value>>, Refused> {
        let Ok(claims) = self.judge(loaded, token, now) else { return Ok(None) };
        let id = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
        let revoked = loaded.ring.is_revoked(id).await.map_err(|_| Refused::Unavailable)?;
        Ok((!revoked).then_some(claims))
    }

    fn judge(&self, loaded: &Loaded, token: &str, now: Unix) -> Result<Map<String, Value>, Rejected> {
        let mark = if token.starts_with(MARK) { MARK } else { "" };
        let read = Unverified::read_marked(token.as_bytes(), mark, &Signing::ALL)?;
        let claims = match read.verify(&loaded.ring.keys()) {
            Err(Rejected::UnknownKey) => read.verify(&loaded.ring.renewed(now))?,
            known => known?,
        };
        let (issuers, required) = (vec![self.issuer.clone()], vec!["exp".to_owned(), "jti".to_owned()]);
        Rules { issuers, required, ..Rules::default() }.check(&claims, now)?;
        Ok(claims)
    }

    /// RFC 7662 section 2.2: of a token that is not valid nothing is said.
    async fn worth(&self, loaded: &Loaded, token: &str, now: Unix) -> Result<Value, Refused> {
        Ok(match self.read(loaded, token, now).await? {
            Some(claims) => {
                let mut worth = Value::Object(claims);
                worth["active"] = true.into();
                worth["token_type"] = "Bearer".into();
                worth
            }
            None => json!({ "active": false }),
        })
    }

    /// RFC 7009 section 2.2: a token that is not valid, or somebody else's, is no error, and stays what it was.
    async fn revoke(
        &self,
        loaded: &Loaded,
        ask: &Ask,
        (consumer, now): (&Arc<Consumer>, Unix),
    ) -> Result<Value, Refused> {
        let token = ask.parameter("token").ok_or(Refused::InvalidRequest)?;
        if let Some(claims) = self.read(loaded, token, now).await?
            && claims.get("sub").and_then(Value::as_str) == Some(&*consumer.name)
        {
            take_back(loaded, &claims, now).await?;
        }
        Ok(json!({}))
    }
}

/// Whether it was this call that took the token back.
async fn take_back(loaded: &Loaded, claims: &Map<String, Value>, now: Unix) -> Result<bool, Refused> {
    let id = claims.get("jti").and_then(Value::as_str).unwrap_or_default().to_owned();
    let end = claims.get("exp").and_then(Value::as_u64).unwrap_or(u64::MAX);
    // It is taken back here: who asked is to ask again, so that others hear of it.
    loaded.ring.take_back(id, end, now).await.map_err(|_| Refused::Unavailable)
}

fn keys(loaded: &Loaded) -> Response {
    let mut head = ResponseHead::new(200);
    head.fields.append(NameId::ContentType, b"application/jwk-set+json");
    head.fields.append(NameId::CacheControl, b"public, max-age=300");
    Response { head, body: Body::Full(Bytes::from(loaded.ring.published().to_string())) }
}

fn answer(status: u16, value: &Value) -> Response {
    let mut head = ResponseHead::new(status);
    head.fields.append(NameId::ContentType, b"application/json");
    // RFC 6749 section 5.1.
    head.fields.append(NameId::CacheControl, b"no-store");
    Response { head, body: Body::Full(Bytes::from(value.to_string())) }
}

/// RFC 6749 section 5.2.
fn refuse(refused: Refused) -> Response {
    let unknown = refused == Refused::InvalidClient;
    let status = match refused {
        Refused::InvalidClient => 401,
        Refused::Unavailable => 503,
        _ => 400,
    };
    let mut response = answer(status, &json!({ "error": refused.code() }));
    if unknown {
        response.head.fields.append(NameId::WwwAuthenticate, b"Basic realm=\"token\", charset=\"UTF-8\"");
    }
    response
}
