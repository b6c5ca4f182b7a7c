// The segments of the store, as bars and as a table.

const PICTURE_SEGMENTS_MAX = 200;

const segmentState = segment => (segment.sealed ? "sealed" : "active") + (segment.rewritten ? ", rewritten" : "");

function segmentTable(segments) {
  const parts = PARTS.map(([part]) => part[0].toUpperCase() + part.slice(1));
  const heads = ["Segment", "State", "Created", "Live keys", "Bytes", ...parts];
  const head = (text, index) => element("th", { scope: "col", class: index > 2 ? "number" : "" }, text);
  const cell = (text, attributes) => element("td", attributes ?? { class: "number" }, text);
  const rows = segments.map(segment => element("tr", {},
    cell(String(segment.id), {}), cell(segmentState(segment), {}),
    cell(absolute(Math.floor(segment.created_ms / 1000)), {}),
    cell(count(segment.live_records)), cell(count(segment.bytes)),
    ...PARTS.map(([part]) => cell(count(partsOf(segment)[part])))));
  const headRow = element("tr", {}, ...heads.map(head));
  const table = element("table", {}, element("thead", {}, headRow), element("tbody", {}, ...rows));
  const attributes = {
    "class": "scroll", "tabindex": 0, "role": "region", "aria-label": "Segments", "data-name": "segments",
  };
  return element("details", {}, element("summary", { "data-name": "summary" }, "All numbers of each segment"),
    element("div", attributes, table));
}

let drawer;
function segmentFigure(segments) {
  const legend = element("ul", { class: "legend" }, ...PARTS.map(([part, name]) => element("li", {},
    element("svg:svg", { "aria-hidden": "true" }, element("svg:rect", { width: 12, height: 12, class: part })), name)));
  const picture = element("div", { id: "picture" });
  const caption = element("figcaption", { class: "stack" }, element("h3", {}, "Segments"), legend);
  const figure = element("figure", { class: "box stack" }, caption, picture);
  if (segments.length > PICTURE_SEGMENTS_MAX) {
    const text = `The last ${PICTURE_SEGMENTS_MAX} of ${count(segments.length)} segments.`;
    figure.append(element("p", { class: "quiet" }, text));
  }
  drawer?.disconnect();
  drawer = new ResizeObserver(() => drawSegments(picture, segments.slice(-PICTURE_SEGMENTS_MAX)));
  drawer.observe(picture);
  return figure;
}

const ROW_HEIGHT = 20;
const LEFT = 46;
const RIGHT = 76;

/** One bar for each segment, with a length proportional to its size. */
function drawSegments(picture, segments) {
  const width = Math.max(picture.clientWidth, 200), names = PARTS.map(([part]) => part).join(", ");
  const scale = (width - LEFT - RIGHT) / Math.max(1, ...segments.map(segment => segment.bytes));
  const label = `One bar for each of ${segments.length} segments: ${names} bytes`;
  const svg = element("svg:svg", { width, height: segments.length * ROW_HEIGHT, role: "img", "aria-label": label });
  svg.append(...segments.map((segment, index) => segmentBar(segment, index * ROW_HEIGHT, scale)));
  picture.replaceChildren(svg);
}

function segmentBar(segment, y, scale) {
  const parts = partsOf(segment);
  const details = PARTS.map(([part, name]) => name + " " + bytes(parts[part])).join(", ");
  const title = `Segment ${segment.id} (${segmentState(segment)}), ${bytes(segment.bytes)}: ${details}`;
  const bar = element("svg:g", {}, element("svg:title", {}, title),
    element("svg:text", { x: LEFT - 8, y: y + 14, "text-anchor": "end" }, "#" + segment.id));
  let x = LEFT;
  for (const [part] of PARTS) {
    if (!parts[part]) continue;
    // Keeps small parts visible.
    const length = Math.max(parts[part] * scale, 1);
    bar.append(element("svg:rect", { x, y: y + 3, width: length, height: ROW_HEIGHT - 6, class: part }));
    x += length;
  }
  bar.append(element("svg:text", { x: x + 6, y: y + 14 }, bytes(segment.bytes) + (segment.sealed ? "" : " ▸")));
  return bar;
}
