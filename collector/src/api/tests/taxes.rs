//! Taxes that a service says, over a real socket.

use tokio::io::AsyncReadExt;

use super::certificates::verify_all;
use super::invoices::{check_document, run};
use super::*;

/// A tax service that takes 10 % of all lines, of acme; fails for globex, and forgets a line for initech.
async fn tax_service() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
                let question: Value = loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    bytes.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&bytes);
                    let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
                    if let Ok(question) = serde_json::from_str(body) {
                        break question;
                    }
                };
                let lines = question["lines"].as_array().unwrap();
                let numbers: Vec<_> = lines.iter().map(|line| line["number"].clone()).collect();
                let (status, lines) = match question["customer"]["id"].as_str().unwrap() {
                    "acme" => ("200 OK", &numbers[..]),
                    "initech" => ("200 OK", &numbers[1..]),
                    _ => ("500 Internal Server Error", &numbers[..]),
                };
                // Of 50.50 and of 20.50 + 0 + 66.67.
                let net = if lines.len() == numbers.len() { "50.50" } else { "66.67" };
                let body = json!({"taxes": [{"name": "city", "label": "City tax 10 %", "percent": "10",
                    "inclusive": false, "net": net, "tax": "5.05", "lines": lines}]});
                let body = body.to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    format!("http://{address}/taxes")
}

#[tokio::test]
async fn a_tax_service_says_what_is_taxed_or_the_document_waits() {
    let service = crate::tax_service::HttpTaxService::new(&tax_service().await);
    let billing = crate::billing_run::Settings {
        taxes: Some(std::sync::Arc::new(service)),
        ..crate::billing_run::Settings::default()
    };
    let world = worked_example::world_billing(billing).await;
    let told = run(&world, "2026-11-01").await;
    assert_eq!(told[0], "acme issued INV2026-000001 55.55 55.55");
    assert!(
        told[1].starts_with(
            "globex: failed to draw up the invoice: the tax service says: http status: 500"
        ),
        "{told:?}"
    );
    assert!(
        told[2].contains("the tax service says: no tax of line 1: name one of 0 %"),
        "{told:?}"
    );
    check_document(
        &world,
        "INV2026-000001",
        &[
            "period Base 30.00",
            "period calls 20.50",
            "period seats 0.00",
            "City tax 10 %: 50.50 + 5.05",
            "50.50 55.55 0.00 55.55 EUR",
        ],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}
