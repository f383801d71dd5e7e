//! Who refers to a manifest.

use super::*;

async fn list(server: &Server, path: &str) -> (Vec<Value>, String) {
    let answer = server.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    assert_eq!(header(&answer, "content-type"), INDEX);
    let link = header(&answer, "link").to_owned();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((&body["schemaVersion"], &body["mediaType"]), (&json!(2), &json!(INDEX)));
    (body["manifests"].as_array().unwrap().clone(), link)
}

/// Pushes an artifact that refers to `subject`.
async fn attach(server: &Server, subject: &Digest, artifact_type: &str, layer: &[u8]) -> Digest {
    let mut body = server.image("a", layer).await;
    body["artifactType"] = json!(artifact_type);
    body["annotations"] = json!({ "made-by": "test" });
    body["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 3 });
    let digest = sha256(body.to_string().as_bytes());
    let answer = server.put_manifest("a", &digest.to_string(), IMAGE, &body).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(header(&answer, "oci-subject"), subject.to_string());
    digest
}

#[actix_web::test]
async fn referrers_are_described_filtered_and_forgotten() {
    let server = Server::start();
    // The subject itself need not be there.
    let subject = sha256(b"subject");
    let path = format!("/v2/a/referrers/{subject}");
    assert_eq!(list(&server, &path).await.0, Vec::<Value>::new());
    let signature = attach(&server, &subject, "a/signature", b"1").await;
    attach(&server, &subject, "a/sbom+json", b"2").await;
    assert_eq!(list(&server, &path).await.0.len(), 2);

    let answer = server.get(&format!("{path}?artifactType=a/sbom%2Bjson")).await;
    assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
    let (found, _) = list(&server, &format!("{path}?artifactType=a%2Fsignature")).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], signature.to_string());
    assert_eq!(found[0]["artifactType"], "a/signature");
    assert_eq!(found[0]["annotations"], json!({ "made-by": "test" }));

    server.send("DELETE", &format!("/v2/a/manifests/{signature}")).await;
    let left = list(&server, &path).await.0;
    assert_eq!(
        left.iter().map(|it| it["artifactType"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a/sbom+json"]
    );
}

#[actix_web::test]
async fn pages_lead_from_one_to_the_next() {
    let server = Server::start();
    let subject = sha256(b"subject");
    for at in 0..5 {
        attach(&server, &subject, "a/b", format!("{at}").as_bytes()).await;
    }
    let mut path = format!("/v2/a/referrers/{subject}?n=2");
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let (found, link) = list(&server, &path).await;
        seen.extend(found.into_iter().map(|it| it["digest"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) else {
            break;
        };
        path = next.to_owned();
    }
    assert_eq!((pages, seen.len()), (3, 5));
    assert!(seen.is_sorted());
}

#[actix_web::test]
async fn a_fallback_index_is_part_of_the_list() {
    let server = Server::start();
    let subject = sha256(b"subject");
    let digest = attach(&server, &subject, "a/b", b"1").await;
    // As a client that knows no referrers API leaves it: a manifest, and an index under the subject's tag.
    let mut other = server.image("a", b"2").await;
    other["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 3 });
    let other = other.to_string();
    let put = server.request("PUT", &format!("/v2/a/manifests/{}", sha256(other.as_bytes())));
    put.header("content-type", IMAGE).body(other.clone()).send().await.unwrap();
    let stranger = server.push_image("a", "v1", b"3").await;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [
            descriptor(IMAGE, other.as_bytes()),
            { "mediaType": IMAGE, "digest": stranger.to_string(), "size": 9 },
        ],
    });
    let tag = subject.to_string().replace(':', "-");
    assert_eq!(server.put_manifest("a", &tag, INDEX, &index).await.status(), StatusCode::CREATED);
    let found = list(&server, &format!("/v2/a/referrers/{subject}")).await.0;
    let mut digests: Vec<&str> = found.iter().map(|it| it["digest"].as_str().unwrap()).collect();
    digests.sort_unstable();
    let mut expected = [digest.to_string(), sha256(other.as_bytes()).to_string()];
    expected.sort();
    assert_eq!(digests, expected);
}

#[actix_web::test]
async fn an_unknown_repository_has_none_and_a_bad_digest_is_named() {
    let server = Server::start();
    assert_eq!(list(&server, &format!("/v2/none/referrers/{}", sha256(b"x"))).await.0, Vec::<Value>::new());
    assert_eq!(problem(server.get("/v2/a/referrers/v1").await).await, code(400, "DIGEST_INVALID"));
}
