"use strict";
(() => {
  const every = 5000, patience = 8000;
  const by = (id) => document.getElementById(id);
  const main = by("main"), banner = by("banner"), overall = by("overall");
  const kept = { get: () => { try { return sessionStorage.getItem("token") || ""; } catch { return ""; } },
    set: (it) => { try { it ? sessionStorage.setItem("token", it) : sessionStorage.removeItem("token"); } catch { /* for this page only */ } } };
  let token = kept.get(), note = "", shown = null, seenAt = 0, round = 0, timer = 0;

  // Everything that is shown goes through here, as text.
  const make = (kind, name, ...inside) => {
    const it = document.createElement(kind);
    if (name) it.className = name;
    for (const part of inside) if (part !== null && part !== undefined) it.append(typeof part === "object" ? part : String(part));
    return it;
  };
  const states = { ok: "ok", pass: "ok", warn: "warn", fail: "fail", unknown: "none" };
  const chip = (word, state) => make("span", "chip " + (states[state] || ""), word);

  const time = (seconds) => {
    if (seconds < 1) return (seconds && seconds < 0.001 ? "< 1" : Math.round(seconds * 1000)) + " ms";
    if (seconds < 120) return (seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)) + " s";
    if (seconds < 7200) return Math.round(seconds / 60) + " min";
    const [unit, word] = seconds < 172800 ? [3600, " h"] : [86400, " d"], count = seconds / unit;
    return String(count < 10 ? Math.round(count * 10) / 10 : Math.round(count)) + word;
  };
  const bytes = (count) => {
    let unit = 0;
    while (count >= 1024 && unit < 4) { count /= 1024; unit += 1; }
    return (unit ? count.toFixed(1) : count) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
  };
  const number = (it) => Number.isInteger(it) ? it.toLocaleString("en") : String(Math.round(it * 1000) / 1000);
  const clock = (text) => { const at = new Date(text); return isNaN(at) ? text : at.toLocaleTimeString([], { hour12: false }); };
  const value = (name, it) => {
    if (it === null || it === undefined || it === "") return "–";
    if (typeof it === "number") {
      if (name.endsWith("_seconds")) return time(it);
      if (name === "duration_ms") return time(it / 1000);
      if (name === "bytes" || name.endsWith("_bytes")) return bytes(it);
      if (name.endsWith("_ratio")) return (it * 100).toFixed(1) + " %";
      return number(it);
    }
    if (typeof it === "boolean") return it ? "yes" : "no";
    return typeof it === "object" ? JSON.stringify(it) : it;
  };
  const titles = { oldest_seconds: "oldest", lag_seconds: "lag", hit_ratio: "hits", duration_ms: "took" };
  const title = (name) => titles[name] || name.replaceAll("_", " ");
  const first = ["name", "state", "role", "region", "epoch", "partition", "depth", "in_flight", "oldest_seconds", "lag_seconds",
    "parked_keys", "dead", "in_use", "idle", "max", "waiting", "entries", "bytes", "hit_ratio", "queued", "processed", "failed",
    "status", "code", "took", "at", "rounds", "from", "to", "value", "target", "proposal", "actor", "reason"];
  const place = (name) => { const at = first.indexOf(name); return at < 0 ? first.length : at; };

  // The narrow layout makes blocks of tables, rows and cells; their roles say on what they are.
  const part = (kind, name, role, ...inside) => {
    const it = make(kind, name, ...inside);
    it.setAttribute("role", role);
    return it;
  };
  const table = (rows, columns) => {
    columns = columns || [...new Set(rows.flatMap((row) => Object.keys(row)))].sort((a, b) => place(a) - place(b));
    const numeric = (name) => rows.some((row) => typeof row[name] === "number");
    const head = part("tr", "", "row", ...columns.map((name) => {
      const cell = part("th", numeric(name) ? "number" : "", "columnheader", title(name));
      cell.scope = "col";
      return cell;
    }));
    const isOne = (name) => name === "state" || name === "status";
    const body = rows.map((row) => part("tr", isOne(columns[1]) ? "stated" : "", "row", ...columns.map((name, index) => {
      const isState = isOne(name);
      const inside = isState && row[name] ? chip(row[name], row[name]) : value(name, row[name]);
      const kind = numeric(name) ? "number" : isState ? "state" : { at: "whole", actor: "mid", code: "line", reason: "long", decision: "long", error: "long" }[name] || "";
      const cell = part("td", [index === 0 ? "first" : "", kind, inside === "–" ? "blank" : ""].join(" "), "cell", inside);
      cell.dataset.label = title(name);
      return cell;
    })));
    return make("div", "scroll", part("table", "", "table", part("thead", "", "rowgroup", head), part("tbody", "", "rowgroup", ...body)));
  };
  const card = (id, head, ...inside) => {
    const [words, ...chips] = [].concat(head);
    const name = make("span", "", words);
    const it = make("section", "", make("h2", "", name, ...chips), ...inside);
    it.id = name.id = id;
    name.id += "-name";
    it.dataset.id = id;
    it.setAttribute("aria-labelledby", name.id);
    return it;
  };
  const nothing = (words) => make("p", "empty", words);

  const tableCard = (it) => {
    const state = ["fail", "warn", "ok"].find((state) => it.states[state]), head = [it.title];
    if (it.rows.length) head.push(state === "ok" || !state ? chip(it.count, "ok") : chip(it.states[state] + " " + state, state));
    const inside = it.error ? make("p", "error", "This " + it.error + ".") : it.rows.length ? table(it.rows) : nothing("None.");
    const more = it.count > it.rows.length ? nothing("The worst " + it.rows.length + " of " + number(it.count) + ".") : null;
    return card("table-" + it.id, head, inside, more);
  };
  const healthCard = (health) => {
    const rows = Object.entries(health.checks || {}).map(([name, check]) => ({
      name, status: check.status, code: check.code, duration_ms: check.duration_ms, at: check.time ? clock(check.time) : null,
    }));
    const order = ["fail", "unknown", "warn", "pass"];
    rows.sort((a, b) => order.indexOf(a.status) - order.indexOf(b.status));
    return card("health", ["Health checks", chip(health.status, health.status)], rows.length ? table(rows) : nothing("None are registered."));
  };
  const fact = (name, it) => make("div", "", make("dt", "", name), make("dd", "", it ?? "–"));
  // What holds a scaler back, as words with a state.
  const held = (it) => {
    const marks = [];
    if (it.paused) marks.push(["paused" + (it.paused_by ? " by " + it.paused_by.actor : ""), "warn"]);
    if (it.scale_in_forbidden) marks.push(["failover: no scale-in", "warn"]);
    if (typeof it.held_for === "number") marks.push(["held " + time(it.held_for), "warn"]);
    for (const condition of it.conditions) {
      const limit = condition.kind === "ScalingLimited", reason = condition.reason;
      // Rates and the minimum limit every day; to want more than there may be does not go away by itself.
      if (limit && condition.holds) marks.push([spaced(reason), reason === "TooManyReplicas" ? "warn" : ""]);
      if (!limit && !condition.holds) marks.push([spaced(reason), "fail"]);
    }
    return marks;
  };
  const words = { TooManyReplicas: "wants more than the maximum", TooFewReplicas: "wants fewer than the minimum", ScaleInForbidden: "nothing is taken away" };
  const spaced = (reason) => words[reason] || reason.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  const fold = (id, words, ...inside) => {
    const it = make("details", "", make("summary", "", words), ...inside);
    it.dataset.id = id;
    it.open = opened.has(id);
    it.addEventListener("toggle", () => it.open ? opened.add(id) : opened.delete(id));
    return it;
  };
  const scalingCard = (it, index) => {
    const chips = [it.target, ...held(it).map(([words, state]) => chip(words, state))];
    const replicas = it.replicas, last = it.recommendation;
    const facts = make("dl", "", fact("current", replicas.current), fact("desired", replicas.desired), fact("ready", replicas.ready),
      fact("bounds", replicas.min + "–" + replicas.max), fact("wanted", last ? last.raw : null));
    const why = make("p", "why", last ? clock(last.at) + "  " + last.text : "Nothing was decided yet.");
    const metrics = it.metrics.map((metric) => ({ name: metric.name, value: metric.value, target: metric.target,
      proposal: metric.proposal, ...(metric.error ? { error: metric.error } : {}) }));
    const changes = it.history.map((change) => ({ at: clock(change.at), from: change.from, to: change.to, actor: change.actor, reason: change.reason }));
    const decisions = it.decisions.map((one) => ({ at: clock(one.at), rounds: one.rounds, decision: one.text }));
    const pause = it.paused && it.paused_by && it.paused_by.reason ? make("p", "why", "Paused at " + clock(it.paused_by.at) + ": " + it.paused_by.reason) : null;
    return card("scaling-" + index, chips, facts, why, pause, metrics.length ? table(metrics) : null,
      fold("changes-" + it.target, "Last changes (" + changes.length + ")", changes.length ? table(changes) : nothing("None.")),
      fold("decisions-" + it.target, "Last decisions (" + decisions.length + ")", decisions.length ? table(decisions) : nothing("None.")));
  };
  // What a person on call has to look at, the worst first, each a way to its section.
  const attention = (it) => {
    const marks = [];
    for (const [name, check] of Object.entries(it.health ? it.health.checks || {} : {})) {
      if (check.status !== "pass") marks.push([name + ": " + check.status, check.status, "health"]);
    }
    it.scaling.forEach((one, index) => {
      for (const [words, state] of held(one)) if (state) marks.push([one.target + ": " + words, state, "scaling-" + index]);
    });
    for (const one of it.tables) {
      if (one.error) marks.push([one.title + ": " + one.error, "warn", "table-" + one.id]);
      for (const state of ["fail", "warn"]) if (one.states[state]) marks.push([one.title + ": " + one.states[state] + " " + state, state, "table-" + one.id]);
    }
    marks.sort((a, b) => (a[1] === "fail" ? 0 : 1) - (b[1] === "fail" ? 0 : 1));
    const links = marks.slice(0, 30).map(([words, state, id]) => {
      const link = make("a", "chip " + (states[state] || ""), words);
      link.href = "#" + id;
      return make("li", "", link);
    });
    const section = links.length ? card("attention", "Needs attention", make("ul", "marks", ...links)) : card("attention", ["Nothing needs attention", chip("ok", "ok")]);
    section.classList.add("wide");
    return section;
  };
  const opened = new Set();

  const draw = (it) => {
    by("service").textContent = it.service || "Status";
    document.title = (it.status && it.status !== "pass" ? it.status + " – " : "") + (it.service || "Status");
    const word = it.draining ? "draining" : it.status || "no checks";
    if (overall.textContent !== word) overall.textContent = word;
    overall.className = "chip " + (it.draining ? "warn" : states[it.status] || "");
    by("forget").hidden = !token;
    if (!it.authorized) {
      const parts = [it.checks ? "health checks (" + it.checks + ")" : "", it.scalers ? "scalers (" + it.scalers + ")" : "", ...it.tables.map((one) => one.title.toLowerCase())].filter(Boolean);
      main.replaceChildren(card("locked", "Details need a token", nothing(parts.length ? "There is more about: " + parts.join(", ") + "." : "Nothing else is registered."),
        nothing("Type the token above. It stays in this tab and is sent only to this service.")));
      return;
    }
    const cards = [];
    if (it.health || it.scaling.length || it.tables.length) cards.push(attention(it));
    if (it.health) cards.push(healthCard(it.health));
    cards.push(...it.scaling.map(scalingCard), ...it.tables.map(tableCard));
    if (!cards.length) cards.push(card("nothing", "Nothing is registered", nothing("The service shows no checks, scalers or tables.")));
    put(cards);
  };
  // Everything is made anew; what had the focus, and where it was scrolled to, stays.
  const put = (cards) => {
    const focused = document.activeElement, inside = focused && main.contains(focused);
    const fold = inside && focused.closest("details"), link = inside && focused.getAttribute("href");
    const scrolled = [...main.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
    main.replaceChildren(...cards);
    main.querySelectorAll(".scroll").forEach((it, index) => { it.scrollLeft = scrolled[index] || 0; });
    const again = fold ? [...main.querySelectorAll("details")].find((it) => it.dataset.id === fold.dataset.id)
      : link ? [...main.querySelectorAll("a")].find((it) => it.getAttribute("href") === link) : null;
    if (again) (fold ? again.querySelector("summary") : again).focus({ preventScroll: true });
  };

  const age = () => {
    const seconds = Math.round((Date.now() - seenAt) / 1000);
    by("updated").textContent = !seenAt ? "" : seconds < 1 ? "seen just now" : "seen " + time(seconds).replace(".0", "") + " ago";
  };
  const complain = (words) => {
    if (banner.textContent !== words) banner.textContent = words;
    banner.hidden = !words;
    main.classList.toggle("stale", words.includes("cannot be seen") && Boolean(shown));
  };

  const look = async () => {
    clearTimeout(timer);
    const mine = ++round, stop = new AbortController();
    const late = setTimeout(() => stop.abort(), patience);
    try {
      const headers = token ? { authorization: "Bearer " + token } : {};
      // The page may stand under a prefix, with or without a slash behind it; and the token goes nowhere but here.
      const answer = await fetch(location.origin + location.pathname.replace(/\/+$/, "") + "/api/v1/overview", { headers, cache: "no-store", credentials: "omit", redirect: "error", signal: stop.signal });
      if (mine !== round) return;
      if (answer.status === 401) {
        token = ""; kept.set("");
        note = "This token is not known here.";
        look();
        return;
      }
      if (answer.status === 429) throw new Error("It is asked too often.");
      if (!answer.ok) throw new Error("It answers " + answer.status + ".");
      const it = await answer.json();
      if (mine !== round) return;
      shown = it; seenAt = Date.now();
      draw(it);
      complain(note);
    } catch (error) {
      if (mine !== round) return;
      const why = error instanceof TypeError || error.name === "AbortError" ? "It does not answer." : error.message;
      complain("The service cannot be seen. " + why + (shown ? " Below is what was known." : ""));
      if (!shown) { overall.textContent = "not seen"; overall.className = "chip fail"; }
    } finally {
      clearTimeout(late);
      if (mine === round) { clearTimeout(timer); timer = setTimeout(look, every); age(); }
    }
  };

  by("sign").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = by("token").value.trim();
    by("token").value = "";
    if (!typed) return;
    note = "";
    // A header holds no more than this; the service would refuse it anyway.
    token = /^[\x20-\x7e]+$/.test(typed) ? typed : "not a token";
    kept.set(token);
    look();
  });
  by("forget").addEventListener("click", () => { token = ""; note = ""; kept.set(""); shown = null; main.replaceChildren(); look(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setInterval(age, 1000);
  look();
})();
