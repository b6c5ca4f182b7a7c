// Statistics of the store.

const PARTS = [
  ["live", "live"], ["dead", "overwritten or deleted"], ["expired", "expired"], ["tombstones", "tombstones"],
  ["other", "headers and indexes"],
];

function partsOf(segment) {
  const parts = {
    live: segment.live_bytes,
    dead: segment.dead_bytes - segment.expired_bytes,
    expired: segment.expired_bytes,
    tombstones: segment.tombstone_bytes,
  };
  parts.other = Math.max(0, segment.bytes - parts.live - segment.dead_bytes - parts.tombstones);
  return parts;
}

async function fetchStatistics() {
  const response = await call("GET", "embercask/statistics", { signal: replacing("list") });
  return (await response.json()).result;
}

async function loadStatistics() {
  showStatistics(await fetchStatistics());
  say("Updated at " + absolute(Math.floor(serverNow() / 1000)).slice(11) + ".");
}
byId("statistics-refresh").addEventListener("click", () => run(loadStatistics));

function box(title, facts) {
  const list = element("dl", { class: "facts" });
  for (const [name, value] of facts) list.append(element("dt", {}, name), element("dd", {}, value));
  return element("section", { class: "box stack", "aria-label": title }, element("h3", {}, title), list);
}

function warningsOf(numbers) {
  const warnings = [
    numbers.disk_full && "The disk was found full.",
    numbers.poisoned && "The store refuses writes: " + numbers.poisoned,
    numbers.background_error && "Background work failed: " + numbers.background_error,
    numbers.replica?.why_not && "This replica is not ready: " + numbers.replica.why_not,
  ];
  return warnings.filter(Boolean).map(text => element("p", { class: "warning", role: "alert" }, text));
}

/** Where this server is in the log that it shares; nothing if it is alone. */
function replicaBoxes(replica) {
  if (!replica) return [];
  const { position, log_last: last, age_ms: age } = replica;
  return [box("Replica", [["State", replica.doing], ["Position", count(position)],
    ["Behind", last === null ? "unknown" : count(Math.max(0, last - position)) + " entries"],
    ["Last entry", (age / 1000).toFixed(1) + " s ago"]])];
}

function boxesOf(numbers) {
  const { segments, memory, compaction, recovery, segment_bytes: total } = numbers;
  const parts = partsOf({ ...numbers, bytes: total });
  const share = part => bytes(part) + (total ? `, ${(part * 100 / total).toFixed(1)} %` : "");
  return [
    ...replicaBoxes(numbers.replica),
    box("Store", [["Keys", count(numbers.keys)], ["Namespaces", count(numbers.namespaces)],
      ["Segments", `${count(segments.length)}, ${bytes(total)}`]]),
    box("On disk", PARTS.map(([part, name]) => [name, share(parts[part])])),
    box("Memory", [["Key directory", bytes(memory.keydir_bytes)], ["Key order", bytes(memory.key_order_bytes)],
      ["Expiry queue", bytes(memory.expiry_queue_bytes)], ["Buffers", bytes(memory.buffer_bytes)]]),
    box("Compaction", [["Runs", count(compaction.runs)], ["Read", bytes(compaction.read_bytes)],
      ["Written", bytes(compaction.written_bytes)], ["Reclaimed", bytes(compaction.reclaimed_bytes)]]),
    box("Last opening", [["Last close", recovery.clean ? "clean" : "unclean: recovered"],
      ["Segments", count(recovery.segments)], ["Took", count(recovery.duration_ms) + " ms"],
      ...(recovery.discarded_bytes ? [["Discarded", bytes(recovery.discarded_bytes)]] : [])]),
  ];
}

/** Shows the numbers. What was unfolded or has the focus stays so. */
function showStatistics(numbers) {
  const numbersBox = byId("numbers");
  const isOpen = numbersBox.querySelector("details")?.open ?? false;
  const focusedName = numbersBox.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  const scrolled = numbersBox.querySelector(".scroll")?.scrollLeft ?? 0;
  const table = segmentTable(numbers.segments);
  table.open = isOpen;
  const boxes = element("div", { class: "boxes" }, ...boxesOf(numbers));
  numbersBox.replaceChildren(...warningsOf(numbers), ratesBox(), boxes, segmentFigure(numbers.segments), table);
  table.querySelector(".scroll").scrollLeft = scrolled;
  if (focusedName) numbersBox.querySelector(`[data-name="${focusedName}"]`)?.focus();
}

// ---- Live ----

const LIVE_EVERY = 2000;
const SAMPLES_MAX = 60;
let liveTimer = null;

/** Keeps the last numbers, from which rates are computed. */
function addSample(numbers) {
  const sample = { at: performance.now(), writes: numbers.last_sequence, keys: numbers.keys };
  state.samples = [...state.samples, sample].slice(-SAMPLES_MAX - 1);
}

/** Writes per second between each two samples. */
function writeRates() {
  return state.samples.slice(1).map((sample, index) => {
    const before = state.samples[index];
    return Math.max(0, (sample.writes - before.writes) * 1000 / (sample.at - before.at));
  });
}

function sparkline(values) {
  const width = 240, height = 40, most = Math.max(1, ...values);
  const x = index => (SAMPLES_MAX - values.length + index) * width / (SAMPLES_MAX - 1);
  const y = value => height - 2 - value * (height - 4) / most;
  const points = values.map((value, index) => x(index).toFixed(1) + "," + y(value).toFixed(1));
  const label = `Writes per second, the last ${values.length} measurements, at most ${most.toFixed(1)}`;
  const attributes = { width, height, viewBox: `0 0 ${width} ${height}`, class: "spark" };
  const svg = element("svg:svg", { ...attributes, role: "img", "aria-label": label });
  svg.append(element("svg:polyline", { points: points.join(" ") }));
  return svg;
}

/** What is only known from several measurements; empty before. */
function ratesBox() {
  const rates = writeRates();
  if (!rates.length) return element("div", { hidden: "" });
  const keys = state.samples.at(-1).keys - state.samples[0].keys;
  const change = (keys > 0 ? "+" : "") + count(keys);
  const made = box("Now", [["Writes per second", rates.at(-1).toFixed(1)], ["Keys in this time", change]]);
  made.append(sparkline(rates));
  return made;
}

function stopLive() {
  clearTimeout(liveTimer);
  liveTimer = null;
  byId("statistics-live").setAttribute("aria-pressed", "false");
}

/** Measures until it is stopped, but not while the page is hidden. */
async function measure() {
  const timer = liveTimer;
  try {
    if (!document.hidden) {
      const numbers = await fetchStatistics();
      if (timer !== liveTimer) return;
      addSample(numbers);
      showStatistics(numbers);
    }
  } catch (error) {
    if (timer !== liveTimer || error.name === "AbortError") return;
    stopLive();
    throw error;
  }
  liveTimer = setTimeout(() => run(measure), LIVE_EVERY);
}

byId("statistics-live").addEventListener("click", () => {
  if (liveTimer !== null) {
    stopLive();
    return say("Live statistics are off.");
  }
  state.samples = [];
  byId("statistics-live").setAttribute("aria-pressed", "true");
  say(`Live statistics are on: every ${LIVE_EVERY / 1000} seconds.`);
  liveTimer = setTimeout(() => run(measure), 0);
});
