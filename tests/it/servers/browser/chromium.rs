//! A headless Chromium, spoken to over pipes: no port, no driver, no other program.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Chromium {
    child: Child,
    /// Dropped after the child has ended: see `Drop`.
    _profile: TempDir,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
    complaints: Vec<String>,
    forgiven: Option<&'static str>,
}

impl Chromium {
    pub(super) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It speaks on descriptors 3 and 4; a shell puts our pipes there.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null")
            .arg("sh")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-proxy-server",
            ])
            .args([
                "--no-first-run",
                "--disable-extensions",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            _profile: profile,
            input,
            output,
            asked: 0,
            complaints: Vec::new(),
            forgiven: None,
        }
    }

    async fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let missing = "chromium does not start; scripts/setup installs it";
        self.input.write_all(&bytes).await.expect(missing);
        loop {
            let mut line = Vec::new();
            let read = timeout(PATIENCE, self.output.read_until(0, &mut line)).await;
            let read = read.unwrap_or_else(|_| panic!("{method}: no answer")).unwrap();
            assert!(read > 0, "{missing} ({method})");
            line.pop();
            let message: Value = serde_json::from_slice(&line).unwrap();
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Remembers what the browser complains of: errors of scripts, of the policy, of the network.
    fn note(&mut self, message: &Value) {
        let text = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => message["params"]["exceptionDetails"].to_string(),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                message["params"]["entry"]["text"].to_string()
                    + &message["params"]["entry"]["url"].to_string()
            }
            _ => return,
        };
        // That a token was refused is what some tests are after.
        let expected = text.contains("status of 401");
        if !expected {
            self.complaints.push(text);
        }
    }

    pub(super) async fn open(&mut self, url: &str) -> Tab<'_> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await;
        let parameters = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", parameters).await;
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let mut tab = Tab { browser: self, session };
        for domain in ["Page", "Runtime", "Log"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        tab.size(1280, 900, false).await;
        tab.call("Page.navigate", json!({ "url": url })).await;
        tab
    }
}

impl Drop for Chromium {
    /// It writes to its profile as long as it lives; the folder goes when it is gone.
    fn drop(&mut self) {
        tokio::task::block_in_place(|| {
            let ended = async { timeout(PATIENCE, self.child.kill()).await };
            let _ = tokio::runtime::Handle::current().block_on(ended);
        });
    }
}

pub(super) struct Tab<'a> {
    browser: &'a mut Chromium,
    session: String,
}

impl Tab<'_> {
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters).await
    }

    /// The value of an expression.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let value = self.attempt(expression).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn attempt(&mut self, expression: &str) -> Result<Value, Value> {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters).await;
        match result["exceptionDetails"].is_null() {
            true => Ok(result["result"]["value"].clone()),
            false => Err(result),
        }
    }

    /// Waits until an expression is true.
    pub(super) async fn wait(&mut self, expression: &str) {
        let start = Instant::now();
        // Between two pages there is none to ask.
        while !self.attempt(expression).await.is_ok_and(|value| value == true) {
            if start.elapsed() > PATIENCE {
                let text = self.text().await;
                panic!("never {expression}: {text}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn size(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme =
            json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [scheme] })).await;
    }

    pub(super) async fn reload(&mut self) {
        self.evaluate("window.before = 1").await;
        self.call("Page.reload", json!({})).await;
        self.wait("window.before === undefined && document.readyState === 'complete'").await;
    }

    /// Keeps a picture of the whole page, if pictures are wanted.
    pub(super) async fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("RESONANT_SCREENSHOTS") else { return };
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", parameters).await;
        let text = picture["data"].as_str().unwrap();
        let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        let forgiven =
            |text: &&String| self.browser.forgiven.is_none_or(|word| !text.contains(word));
        self.browser.complaints.iter().filter(forgiven).cloned().collect()
    }

    /// How many things there are of each role, as a screen reader is told.
    pub(super) async fn roles(&mut self) -> BTreeMap<String, usize> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let mut roles = BTreeMap::new();
        for node in tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true)
        {
            let role = node["role"]["value"].as_str().unwrap_or_default().to_owned();
            *roles.entry(role).or_default() += 1;
        }
        roles
    }

    /// Presses a key.
    pub(super) async fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", key).await;
        }
    }

    /// Complaints with this word are expected.
    pub(super) fn forgive(&mut self, word: &'static str) {
        self.browser.forgiven = Some(word);
    }
}
