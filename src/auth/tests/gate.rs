//! Passwords, our own tokens, and what the gate says.

use std::fs;
use std::sync::mpsc::sync_channel;

use super::*;

struct Setup {
    auth: Auth,
    dir: tempfile::TempDir,
}

impl Setup {
    fn with(rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        fs::write(&path, USERS).unwrap();
        Self { auth: Auth::with(&htpasswd(&path, rules), Lane::start(1, 8).unwrap()).unwrap(), dir }
    }

    async fn login(&self, user: &str, password: &str) -> Result<Caller, LoginError> {
        self.auth.identify(Some(basic(user, password)), None, Place::Here).await
    }

    async fn with_token(&self, user: Option<&str>, scope: &str) -> Caller {
        let credentials = user.map(|user| basic(user, "open sesame"));
        let grant = self.auth.token(credentials, &[scope]).await.unwrap().unwrap();
        let grant = serde_json::to_value(grant).unwrap();
        assert_eq!(grant["token"], grant["access_token"]);
        self.bring(grant["token"].as_str().unwrap()).await.unwrap()
    }

    async fn bring(&self, token: &str) -> Result<Caller, LoginError> {
        let header = format!("Bearer {token}");
        self.auth.identify(Some(Credentials::parse(header.as_bytes()).unwrap()), None, Place::Here).await
    }

    fn write(&self, users: &str) {
        fs::write(self.dir.path().join("new"), users).unwrap();
        fs::rename(self.dir.path().join("new"), self.dir.path().join("htpasswd")).unwrap();
    }

    /// `yes`, `no` for a refusal, or the challenge.
    fn may(&self, caller: &Caller, ask: Ask<'_>) -> String {
        match self.auth.may(caller, ask) {
            Verdict::Allowed => "yes".to_owned(),
            Verdict::Forbidden(_) => "no".to_owned(),
            Verdict::NeedsLogin(challenge) => challenge.header(None),
        }
    }
}

fn mixed() -> Rules {
    Rules::read(&json!([
        {"repositories": ["public/**"], "users": ["anonymous"], "actions": ["pull"]},
        {"repositories": ["team/**"], "users": ["alice"], "actions": ["pull", "push"]},
        {"repositories": ["ci/**"], "users": ["certificate:runner"], "actions": ["push"]},
    ]))
    .unwrap()
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

#[tokio::test]
async fn who_gives_the_right_password_is_a_user() {
    let setup = Setup::with(Rules::plain(Actions::default()));
    for _ in 0..2 {
        assert_eq!(
            setup.login("alice", "open sesame").await.unwrap().identity,
            Identity::User("alice".into())
        );
        assert!(setup.login("bob", "open barley").await.is_ok());
        for (user, password) in [
            ("alice", "open barley"),
            ("bob", "open sesame"),
            ("carol", "open sesame"),
            ("alice", ""),
            ("Alice", "open sesame"),
        ] {
            assert_eq!(
                setup.login(user, password).await.unwrap_err(),
                LoginError::Wrong,
                "{user} {password}"
            );
        }
    }
    assert_eq!(setup.bring("a.b.c").await.unwrap_err(), LoginError::Scheme("Basic"));
    assert!(setup.auth.token(None, &[]).await.is_none());
}

#[tokio::test]
async fn a_password_is_hashed_once_and_then_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("htpasswd");
    fs::write(&path, USERS).unwrap();
    let lane = Lane::start(1, 1).unwrap();
    let auth = Auth::with(&htpasswd(&path, Rules::plain(Actions::default())), lane.clone()).unwrap();
    let login = async |password: &str| auth.identify(Some(basic("alice", password)), None, Place::Here).await;
    login("open sesame").await.unwrap();
    // The one thread is held up, and the one place to wait is taken.
    let (release, gate) = sync_channel::<()>(2);
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let (started, mut starts) = tokio::sync::mpsc::channel(64);
    let hold = || {
        let (lane, gate, started) = (lane.clone(), Arc::clone(&gate), started.clone());
        tokio::spawn(async move {
            let job = move || {
                let _ = started.blocking_send(());
                gate.lock().unwrap().recv()
            };
            lane.run(job).await
        })
    };
    let first = hold();
    starts.recv().await.unwrap();
    let second = hold();
    tokio::task::yield_now().await;
    assert!(login("open sesame").await.is_ok());
    assert_eq!(login("wrong").await.unwrap_err(), LoginError::Busy);
    assert_eq!(
        auth.identify(Some(basic("nobody", "open sesame")), None, Place::Here).await.unwrap_err(),
        LoginError::Busy,
        "a user who does not exist must cost the same"
    );
    release.send(()).unwrap();
    release.send(()).unwrap();
    first.await.unwrap().unwrap().unwrap();
    second.await.unwrap().unwrap().unwrap();
    assert_eq!(login("wrong").await.unwrap_err(), LoginError::Wrong);
}

#[tokio::test]
async fn a_changed_file_changes_who_comes_in() {
    let setup = Setup::with(Rules::plain([Action::Pull].into_iter().collect()));
    let (alice, bob) = USERS.split_once('\n').unwrap();
    let token = setup.auth.token(Some(basic("alice", "open sesame")), &[]).await.unwrap().unwrap();
    let token = serde_json::to_value(token).unwrap()["token"].as_str().unwrap().to_owned();
    assert!(setup.bring(&token).await.is_ok());
    // A bad file changes nothing.
    setup.write("alice:plain\n");
    assert!(setup.login("alice", "open sesame").await.is_ok());
    // Without alice, with another password of hers, and with the old one again.
    setup.write(bob);
    assert_eq!(setup.login("alice", "open sesame").await.unwrap_err(), LoginError::Wrong);
    assert_eq!(setup.bring(&token).await.unwrap_err(), TokenError::Expired.into());
    setup.write(&bob.replace("bob", "alice"));
    assert_eq!(setup.login("alice", "open sesame").await.unwrap_err(), LoginError::Wrong);
    assert!(setup.login("alice", "open barley").await.is_ok());
    assert_eq!(setup.bring(&token).await.unwrap_err(), TokenError::Expired.into());
    setup.write(alice);
    assert!(setup.bring(&token).await.is_ok());
    assert_eq!(setup.login("bob", "open barley").await.unwrap_err(), LoginError::Wrong);
}

#[tokio::test]
async fn with_passwords_alone_the_challenge_is_basic() {
    let setup = Setup::with(Rules::plain(Actions::default()));
    let (anonymous, alice) =
        (Caller::anonymous(Place::Here), setup.login("alice", "open sesame").await.unwrap());
    let repository = name("a");
    for ask in [
        Ask::Door,
        Ask::Catalog,
        Ask::Status,
        Ask::Repository(&repository, Action::Pull),
        Ask::Repository(&repository, Action::Push),
    ] {
        assert_eq!(setup.may(&anonymous, ask), "Basic realm=\"Sampan\", charset=\"UTF-8\"");
        assert_eq!(setup.may(&alice, ask), "yes");
    }
    assert!(setup.auth.sees_all(&alice) && !setup.auth.sees_all(&anonymous));
}

#[tokio::test]
async fn where_anonymous_clients_may_pull_tokens_are_given() {
    let setup = Setup::with(mixed());
    let here = Here { host: "r.example".to_owned(), secure: true, forwarded: None };
    let challenge = |caller: &Caller, ask: Ask<'_>| match setup.auth.may(caller, ask) {
        Verdict::NeedsLogin(challenge) => challenge.header(Some(&here)),
        other => panic!("{other:?}"),
    };
    let realm = "Bearer realm=\"https://r.example/auth/token\",service=\"sampan\"";
    let (public, team) = (name("public/a"), name("team/a"));
    let stranger = Caller::anonymous(Place::Here);
    // Without a token it pulls, and hears at the door how to log in.
    assert_eq!(challenge(&stranger, Ask::Door), realm);
    assert_eq!(setup.may(&stranger, Ask::Repository(&public, Action::Pull)), "yes");
    let push = Ask::Repository(&team, Action::Push);
    assert_eq!(challenge(&stranger, push), format!("{realm},scope=\"repository:team/a:pull,push\""));

    let anonymous = setup.with_token(None, "repository:public/a:pull,push repository:team/a:pull").await;
    assert_eq!(setup.may(&anonymous, Ask::Door), "yes");
    assert_eq!(setup.may(&anonymous, Ask::Repository(&public, Action::Pull)), "yes");
    assert!(
        challenge(&anonymous, Ask::Repository(&public, Action::Push))
            .ends_with("error=\"insufficient_scope\"")
    );
    assert!(challenge(&anonymous, Ask::Repository(&team, Action::Pull)).starts_with("Bearer"));

    let alice = setup.with_token(Some("alice"), "repository:team/a:pull").await;
    assert_eq!(setup.may(&alice, Ask::Repository(&team, Action::Pull)), "yes");
    // She may push, and this token may not.
    assert!(
        challenge(&alice, push)
            .ends_with("scope=\"repository:team/a:pull,push\",error=\"insufficient_scope\"")
    );
    // She may not, whatever the token.
    assert_eq!(setup.may(&alice, Ask::Repository(&public, Action::Push)), "no");
    assert!(challenge(&alice, Ask::Catalog).contains("scope=\"registry:catalog:*\""));
    // She does not see everything, whatever the token; and nobody is nobody.
    assert_eq!(setup.may(&alice, Ask::Status), "no");
    let nobody = setup.with_token(None, "registry:catalog:*").await;
    assert!(challenge(&nobody, Ask::Status).contains("scope=\"registry:catalog:*\""));
    assert_eq!(setup.may(&setup.with_token(Some("alice"), "registry:catalog:*").await, Ask::Catalog), "yes");
    assert!(!setup.auth.sees(&alice, &public) && setup.auth.sees(&alice.unlimited(), &public));
    // A password comes in as well.
    assert_eq!(setup.may(&setup.login("alice", "open sesame").await.unwrap(), push), "yes");
    assert_eq!(
        setup.auth.token(Some(basic("alice", "x")), &[]).await.unwrap().unwrap_err(),
        LoginError::Wrong
    );
}

#[tokio::test]
async fn our_own_tokens_are_of_this_process_alone() {
    let (setup, other) = (Setup::with(mixed()), Setup::with(mixed()));
    let grant = other.auth.token(None, &["repository:public/a:pull"]).await.unwrap().unwrap();
    let grant = serde_json::to_value(grant).unwrap();
    let token = grant["token"].as_str().unwrap();
    assert_eq!(grant["expires_in"], 300);
    assert!(grant["issued_at"].as_str().unwrap().ends_with('Z'));
    assert!(other.bring(token).await.is_ok());
    assert_eq!(setup.bring(token).await.unwrap_err(), TokenError::Untrusted.into());
    let (_, rest) = token.split_once('.').unwrap();
    let none = format!("{}.{rest}", BASE64URL_NOPAD.encode(b"{\"alg\":\"none\"}"));
    assert_eq!(other.bring(&none).await.unwrap_err(), TokenError::Algorithm.into());
    let signer = Signer::new().sign(&json!([]));
    assert_eq!(other.bring(&signer).await.unwrap_err(), TokenError::Algorithm.into());
}

#[tokio::test]
async fn a_certificate_counts_where_a_rule_names_it_and_nothing_else_was_brought() {
    let setup = Setup::with(mixed());
    let by = async |holder: &str| setup.auth.identify(None, Some(holder), Place::Here).await.unwrap();
    let (ci, team) = (name("ci/a"), name("team/a"));
    let runner = by("runner").await;
    assert_eq!(setup.may(&runner, Ask::Repository(&ci, Action::Push)), "yes");
    assert_eq!(setup.may(&runner, Ask::Repository(&team, Action::Pull)), "no");
    assert_eq!(setup.may(&runner, Ask::Door), "yes");
    for other in ["alice", "anonymous", ""] {
        assert!(by(other).await.is_anonymous(), "{other}");
    }
    let both =
        setup.auth.identify(Some(basic("alice", "open sesame")), Some("runner"), Place::Here).await.unwrap();
    assert_eq!(setup.may(&both, Ask::Repository(&ci, Action::Push)), "no");
    let wrong = setup.auth.identify(Some(basic("alice", "wrong")), Some("runner"), Place::Here).await;
    assert_eq!(wrong.unwrap_err(), LoginError::Wrong);
}

#[tokio::test]
async fn without_authentication_everyone_pulls_and_this_machine_pushes() {
    let (auth, a) = (Auth::open(false), name("a"));
    let place = Place::Elsewhere(Stranger::Proxied);
    let (here, there) = (Caller::anonymous(Place::Here), Caller::anonymous(place));
    for ask in [Ask::Door, Ask::Catalog, Ask::Status, Ask::Repository(&a, Action::Pull)] {
        assert_eq!((auth.may(&here, ask), auth.may(&there, ask)), (Verdict::Allowed, Verdict::Allowed));
    }
    for action in [Action::Push, Action::Delete] {
        assert_eq!(auth.may(&here, Ask::Repository(&a, action)), Verdict::Allowed);
        let denied = Verdict::Forbidden(Stranger::Proxied.into());
        assert_eq!(auth.may(&there, Ask::Repository(&a, action)), denied);
        assert_eq!(Auth::open(true).may(&there, Ask::Repository(&a, action)), Verdict::Allowed);
    }
    assert!(auth.sees_all(&there));
    // What is brought to a registry without passwords changes nothing.
    let brought = auth.identify(Some(basic("a", "b")), Some("c"), place).await.unwrap();
    assert_eq!(
        auth.may(&brought, Ask::Repository(&a, Action::Push)),
        Verdict::Forbidden(Stranger::Proxied.into())
    );
}

#[test]
fn what_is_missing_at_the_start_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("htpasswd");
    let start = || Auth::start(&htpasswd(&path, Rules::default())).unwrap_err().to_string();
    let shown = path.display();
    assert_eq!(
        start(),
        format!("there is no htpasswd file {shown}; make one with: htpasswd -Bc {shown} USER")
    );
    // No file with a password that nobody chose.
    assert!(!path.exists());
    fs::write(&path, "alice:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=\n").unwrap();
    assert_eq!(
        start(),
        format!(
            "{shown} line 1 has a password in SHA-1, which is not taken, because it is guessed too fast; make a good one with: htpasswd -B FILE alice"
        )
    );
    assert!(Auth::start(&token(&path)).unwrap_err().to_string().contains("is no JSON Web Key Set"));
}

#[test]
fn content_is_public_where_everyone_may_pull_everything_and_nowhere_else() {
    let rules = |repositories: &str, user: &str, action: &str| {
        Rules::read(&json!([{"repositories": [repositories], "users": [user], "actions": [action]}])).unwrap()
    };
    let gives = |rules| Setup::with(rules).auth.gives_to_peers();
    assert!(gives(rules("**", "anonymous", "pull")));
    for rules in [
        mixed(),
        Rules::default(),
        rules("*", "anonymous", "pull"),
        rules("**", "anonymous", "push"),
        rules("**", "authenticated", "pull"),
        rules("**", "alice", "pull"),
    ] {
        assert!(!gives(rules));
    }
    assert!(Auth::open(false).gives_to_peers() && Auth::open(true).gives_to_peers());
}
