"use strict";
// Filters, sorts and walks the cards that are already in the page. Everything can be read without it.
(() => {
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);
  const list = get("cards");
  const bar = get("tool-bar");

  // ---- theme: not remembered, so that the page stores nothing
  const theme = get("tool-theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  dark.addEventListener("change", nameTheme);
  nameTheme();

  // ---- printing shows what the filters leave, opened
  let shut = [];
  addEventListener("beforeprint", () => {
    shut = [...document.querySelectorAll("details:not([open])")];
    for (const d of shut) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of shut) d.open = false; });

  // ---- tokens: the arrow keys walk through the values of an example
  const arm = (card) => {
    for (const p of card.querySelectorAll(".tk")) p.tabIndex = 0;
  };
  document.addEventListener("toggle", (e) => { if (e.target.open) arm(e.target); }, true);
  const step = (line, by) => {
    const tokens = [...line.querySelectorAll(".t[data-v]")];
    if (!tokens.length) return;
    const here = tokens.indexOf(document.activeElement);
    const next = tokens[Math.min(tokens.length - 1, Math.max(0, here < 0 ? (by > 0 ? 0 : tokens.length - 1) : here + by))];
    next.tabIndex = -1;
    next.focus({ preventScroll: true });
  };
  document.addEventListener("keydown", (e) => {
    const line = e.target.closest && e.target.closest(".tk");
    if (!line || e.altKey || e.ctrlKey || e.metaKey) return;
    if (e.key === "ArrowRight" || e.key === "ArrowLeft") {
      step(line, e.key === "ArrowRight" ? 1 : -1);
      e.preventDefault();
    } else if (e.key === "Escape" && e.target !== line) line.focus();
  });
  document.addEventListener("click", (e) => {
    const token = e.target.closest(".t[data-v]");
    if (token) { token.tabIndex = -1; token.focus({ preventScroll: true }); }
  });

  if (!list) return;
  for (const e of document.querySelectorAll(".script-only")) e.hidden = false;
  bar.hidden = false;

  // ---- cards and what filters know of them
  const lots = [...list.children];
  const each = lots[0].childElementCount;
  const cards = [...list.querySelectorAll(".card")].map((el, i) => ({
    el, i,
    out: el.dataset.out.split(" "),
    lev: el.dataset.lev.split(" "),
    kind: el.dataset.kind, layer: el.dataset.layer, draw: el.dataset.draw,
    gap: el.dataset.gap === "" ? -Infinity : +el.dataset.gap,
    clear: el.dataset.clear === "" ? -Infinity : +el.dataset.clear,
    n: +el.dataset.n, id: el.id, text: null, on: true,
  }));
  const byId = new Map(cards.map((c) => [c.id, c]));
  const fields = ["q", "verdict", "level", "layer", "kind", "draw", "sort"];
  const field = Object.fromEntries(fields.map((f) => [f, get("tool-" + f)]));
  const orders = {
    "": (a, b) => a.i - b.i,
    gap: (a, b) => b.gap - a.gap || a.i - b.i,
    clear: (a, b) => b.clear - a.clear || a.i - b.i,
    place: (a, b) => a.layer - b.layer || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
    order: (a, b) => a.n - b.n,
  };
  let order = "";
  let row = cards; // as shown, filtered ones too

  const passes = (c, f, words) => {
    if (f.level && f.verdict) {
      if (!c.lev.includes(f.level + f.verdict)) return false;
    } else if (f.level ? !c.lev.some((l) => l[0] === f.level) : f.verdict && !c.out.includes(f.verdict)) return false;
    if (f.layer && c.layer !== f.layer) return false;
    if (f.kind && c.kind !== f.kind) return false;
    if (f.draw && c.draw !== f.draw) return false;
    if (words.length) {
      if (c.text === null) c.text = c.el.textContent.toLowerCase();
      for (const w of words) if (!c.text.includes(w)) return false;
    }
    return true;
  };
  const state = () => Object.fromEntries(fields.map((f) => [f, field[f].value]));
  const apply = (write) => {
    const f = state();
    const words = f.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const c of cards) {
      const on = passes(c, f, words);
      if (on !== c.on) { c.el.hidden = !on; c.on = on; }
      if (on) shown++;
    }
    if (f.sort !== order) {
      order = f.sort;
      row = [...cards].sort(orders[order] || orders[""]);
      lots.forEach((lot, i) => lot.append(...row.slice(i * each, (i + 1) * each).map((c) => c.el)));
    }
    lots.forEach((lot, i) => {
      const on = row.slice(i * each, (i + 1) * each).filter((c) => c.on).length;
      lot.hidden = !on;
      lot.style.containIntrinsicBlockSize = on === each ? "" : `auto ${on * 5}rem`;
    });
    const n = (x) => x.toLocaleString("en");
    get("tool-count").textContent = shown === cards.length
      ? `${n(shown)} components` : `${n(shown)} of ${n(cards.length)} components`;
    get("tool-none").hidden = shown > 0;
    if (write) {
      const query = fields.filter((k) => f[k]).map((k) => `${k}=${encodeURIComponent(f[k])}`).join("&");
      history.replaceState(null, "", query ? "#?" + query : "#components");
    }
  };
  const set = (values) => {
    for (const f of fields) {
      field[f].value = values[f] || "";
      if (field[f].value !== (values[f] || "")) field[f].value = "";
    }
  };

  // ---- addresses: #?verdict=r&level=1 filters, #id opens
  const follow = () => {
    let hash = location.hash.slice(1);
    if (hash.startsWith("?")) {
      set(Object.fromEntries(new URLSearchParams(hash.slice(1))));
      apply(false);
      get("components").scrollIntoView();
      return;
    }
    try { hash = decodeURIComponent(hash); } catch { return; }
    const target = hash && get(hash);
    const el = target && target.closest(".card");
    if (!el) return;
    const card = byId.get(el.id);
    if (card && !card.on) { set({}); apply(false); }
    for (let d = target.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    here = card || null;
    target.scrollIntoView();
    if (target === el) (el.querySelector("summary") || el).focus({ preventScroll: true });
  };

  // ---- walking
  let here = null;
  const walk = (by) => {
    const on = row.filter((c) => c.on);
    if (!on.length) return;
    const focused = document.activeElement && document.activeElement.closest(".card");
    const at = on.indexOf(focused ? byId.get(focused.id) : here);
    const next = on[Math.min(on.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : on.length - 1) : at + by))];
    here = next;
    const stop = next.el.querySelector("summary") || next.el;
    if (stop === next.el) stop.tabIndex = -1;
    next.el.scrollIntoView({ block: "start" });
    stop.focus({ preventScroll: true });
  };
  addEventListener("keydown", (e) => {
    if (e.altKey || e.ctrlKey || e.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
    if (e.key === "j") walk(1);
    else if (e.key === "k") walk(-1);
    else if (e.key === "/") field.q.focus();
    else return;
    e.preventDefault();
  });
  field.q.addEventListener("keydown", (e) => { if (e.key === "Escape") field.q.blur(); });

  let timer = 0;
  bar.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => apply(true), 120); });
  bar.addEventListener("submit", (e) => e.preventDefault());
  bar.addEventListener("reset", () => setTimeout(() => apply(true)));
  addEventListener("hashchange", follow);
  apply(false);
  if (location.hash) follow();
  else if (row.length && row[0].el.tagName === "DETAILS") row[0].el.open = true;
})();
