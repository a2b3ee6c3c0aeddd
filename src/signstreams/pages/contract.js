// The browser of the corpus: lists every video of views.js, and draws points, boxes and crops of views/<video>.js.
// Both are scripts that call a function here, since a page that is opened from a disk may load nothing else.
(() => {
  const $ = (id) => document.getElementById(id);
  const PAGE = 24; // cards that are added at a time
  const NEAR_S = 0.5; // points farther away in time are not drawn
  const SMOOTH_S = 0.25; // between points that follow each other within it, places are interpolated
  const NAMES = { hand_r: tr("right hand"), face: tr("face"), hand_l: tr("left hand"), pose: tr("body") };
  const STATES = ["missing", "detected", "tracked", "filled"];
  const STATE_NAMES = [tr("missing"), tr("detected"), tr("tracked"), tr("filled")];
  const STATUSES = { loose: tr("loose"), quarantined: tr("quarantined"), absent: tr("absent") };
  const SEVERITIES = { error: tr("error"), warning: tr("warning"), info: tr("info") };
  const percent = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)}\u00a0%`;
  const make = (name, content, className) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(content ?? "");
    return element;
  };

  // -- The list: filters, order, cards

  // What a video can be sorted by: its name, and the value as text. The larger, the earlier.
  const MEASURES = {
    no_hands_ratio: [tr("no hands"), percent], estimated_ratio: [tr("hands tracked or filled"), percent],
    unsure_ratio: [tr("unsure hands"), percent],
    num_swaps: [tr("hands change sides"), (count) => plural("%(num)s time", "%(num)s times", count)],
    mirrored_ratio: [tr("sides mirrored"), percent],
    num_people: [tr("people in the picture"), String], damaged: [tr("damaged frames"), percent], s: [tr("length"), (s) => `${s.toFixed(1)} s`],
  };
  // What can be shown alone.
  const KINDS = {
    errors: [tr("errors"), (v) => v.errors > 0], warnings: [tr("warnings"), (v) => v.warnings > 0],
    no_hands_ratio: [tr("no hands in half of the frames"), (v) => v.no_hands_ratio >= 0.5],
    estimated_ratio: [tr("hands tracked or filled in a fifth"), (v) => v.estimated_ratio >= 0.2],
    unsure_ratio: [tr("unsure hands in a fifth"), (v) => v.unsure_ratio >= 0.2],
    num_swaps: [tr("hands change sides"), (v) => v.num_swaps > 0],
    mirrored_ratio: [tr("sides mirrored in a twentieth"), (v) => v.mirrored_ratio >= 0.05],
    num_people: [tr("several people"), (v) => v.num_people > 1],
    damaged: [tr("damaged frames"), (v) => v.damaged > 0], lost: [tr("not extracted"), (v) => !v.frames],
  };
  let index = null, below = [], videos = [], byId = new Map(), shown = [], numCards = 0;

  window.showVideos = (content) => {
    index = content;
    below = [...content.streams.keys()].sort((a, b) => content.streams[a].startsWith("hand") - content.streams[b].startsWith("hand"));
    videos = content.rows.map((row) => Object.fromEntries(content.columns.map((name, place) => [name, row[place]])));
    byId = new Map(videos.map((video) => [video.id, video]));
    if (!videos.length) return;
    const count = (test) => videos.reduce((sum, video) => sum + Boolean(test(video)), 0);
    fill("signer", [...new Set(videos.flatMap((v) => v.signers))].sort().map((name) => [name, name, (v) => v.signers.includes(name)]));
    fill("split", index.splits.map((name) => [name, name, (v) => v.splits.includes(name)]).filter((one) => count(one[2])));
    fill("rule", index.rules.map((name, place) => [place, name, (v) => v.rules.includes(place)]));
    fill("kind", Object.entries(KINDS).map(([key, [name, test]]) => [key, name, test]).filter((one) => count(one[2])));
    for (const [key, [name]] of Object.entries(MEASURES))
      if (videos.some((video) => video[key])) $("sort").append(new Option(name, key));
    $("sort").append(new Option("id", "id"));
    function fill(id, options) {
      for (const [value, name, test] of options) $(id).append(new Option(`${name} (${count(test)})`, value));
      $(id).parentElement.hidden = !options.length;
    }
    for (const cell of document.querySelectorAll("#table td:first-child code")) {
      if (!byId.has(cell.textContent)) continue;
      const button = make("button", cell.textContent);
      button.addEventListener("click", () => open(button.textContent));
      cell.replaceChildren(button);
    }
    $("filters").hidden = false;
    if ($("chosen")) $("chosen").hidden = true;
    list();
    fromAddress();
  };

  function list() {
    const [text, signer, split, rule, kind, sort] = ["search", "signer", "split", "rule", "kind", "sort"].map((id) => $(id).value);
    const words = text.normalize("NFC").toLowerCase();
    shown = videos.filter((v) => (!words || v.id.normalize("NFC").toLowerCase().includes(words)) && (!signer || v.signers.includes(signer))
      && (!split || v.splits.includes(split)) && (!rule || v.rules.includes(Number(rule))) && (!kind || KINDS[kind][1](v)));
    if (sort === "id") shown.sort((a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }));
    else if (sort) shown.sort((a, b) => (b[sort] ?? -1) - (a[sort] ?? -1));
    $("count").textContent = tr("%(num)s of %(total)s", { num: grouped(shown.length), total: plural("%(num)s video", "%(num)s videos", videos.length) });
    $("gallery").replaceChildren();
    numCards = 0;
    more();
  }

  function more() {
    const next = shown.slice(numCards, numCards + PAGE);
    $("gallery").append(...next.map(card));
    numCards += next.length;
    $("more").hidden = numCards >= shown.length;
  }

  function words(video) {
    const coverage = ["pose", ...index.streams].map((name, place) => [NAMES[name] ?? name, video.coverage[place]]);
    return [
      plural("%(num)s frame", "%(num)s frames", video.frames),
      ...coverage.filter((one) => one[1] !== null).map(([name, share]) => `${name} ${percent(share)}`),
      ...Object.entries(MEASURES).filter(([key]) => key !== "s" && video[key] && (key !== "num_people" || video.num_people > 1))
        .map(([key, [name, text]]) => `${name} ${text(video[key])}`),
    ];
  }

  function card(video) {
    const figure = make("figure", "", video.errors || video.status === "quarantined" ? "bad" : ""), button = make("button");
    button.type = "button";
    button.setAttribute("aria-label", `${tr("open")} ${video.id}`);
    button.addEventListener("click", () => open(video.id));
    button.append(picture(video) ?? make("span", video.status === "ok" ? tr("no preview") : (STATUSES[video.status] ?? video.status), "none"));
    const caption = make("figcaption", make("code", video.id));
    const sort = $("sort").value, measure = MEASURES[sort];
    const first = measure && (video[sort] ?? null) !== null ? [`${measure[0]} ${measure[1](video[sort])}`] : [];
    const text = [...new Set([...first, ...words(video)])].join(" · ");
    caption.append(" ", make("span", text, "soft"));
    figure.append(caption, button);
    return figure;
  }

  function picture(video) {
    if (!video.preview) return null;
    const image = make("img");
    image.loading = "lazy";
    image.alt = `${tr("frames of")} ${video.id}`;
    image.src = previewOf(video);
    return image;
  }
  const previewOf = (video) => `../processed/preview/${encodeURIComponent(video.id)}.jpg`;

  for (const id of ["search", "signer", "split", "rule", "kind", "sort"]) $(id).addEventListener("input", list);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", more);

  // -- Views: loaded when they are wanted, the last few kept

  const views = new Map();
  window.showView = (id, content) => views.set(id, content);

  async function load(video) {
    if (!views.has(video.id)) {
      await new Promise((resolve) => {
        const script = make("script");
        script.onload = script.onerror = resolve;
        script.src = `views/${encodeURIComponent(video.id)}.js`;
        document.head.append(script);
        setTimeout(() => script.remove());
      });
      if (views.size > 6) views.delete(views.keys().next().value);
    }
    const view = views.get(video.id);
    if (!view) return null;
    if (!view.image) {
      await unpack(view);
      view.image = new Image();
      view.image.src = view.sprite;
      await view.image.decode().catch(() => {});
    }
    return view;
  }

  async function unpack(view) {
    const packed = Uint8Array.from(atob(view.places), (char) => char.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer()); // low bytes, then high bytes
    const size = planes.length / 2, count = view.times_ms.length, values = new Uint16Array(size);
    for (let place = 0; place < size; place++) { // rows of differences over time
      const before = place % count ? values[place - 1] : 0;
      values[place] = before + planes[place] + (planes[size + place] << 8);
    }
    let time = 0;
    view.times = view.times_ms.map((step) => (time += step) / 1000);
    view.at = (row, frame) => values[row * count + frame]; // 0 is missing
    view.step = count > 1 ? (view.times[count - 1] - view.times[0]) / (count - 1) : 1;
  }

  const fraction = (value) => (value - 1) / index.steps - 1;
  const state = (view, frame, stream) => Number(view.states[frame * index.streams.length + stream]);

  // -- The viewer

  const dialog = $("viewer"), movie = $("movie"), over = $("over"), slider = $("time"), bars = $("states");
  let now = null, view = null, hasMovie = false, time = 0, isRunning = false, ticked = 0;

  async function open(id) {
    const video = byId.get(id);
    if (!video) return;
    stop();
    now = video;
    view = null;
    $("name").textContent = video.id;
    const place = shown.indexOf(video);
    $("place").textContent = place < 0 ? "" : tr("%(num)s of %(total)s", { num: grouped(place + 1), total: grouped(shown.length) });
    const people = [video.signers.length ? `${tr("signed by")} ${video.signers.join(", ")}` : "", video.splits.join(", ")];
    $("known").textContent = [...people.filter(Boolean), ...words(video)].join(" · ");
    $("faults").replaceChildren(...video.findings.map(([severity, rule, found]) => {
      const line = make("li", make("b", SEVERITIES[severity], severity));
      line.append(" ", make("code", rule), ` ${found}`);
      return line;
    }));
    $("picture").replaceChildren(picture(video) ?? "");
    if (video.preview) $("picture").href = previewOf(video);
    $("player").hidden = true;
    say(video.view ? "" : tr("Nothing to draw: this video has no frames, or its files could not be read."));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.focus();
    address(`#video=${encodeURIComponent(id)}`);
    if (!video.view) return;
    let loaded = null;
    try { loaded = await load(video); } catch { /* a browser that cannot inflate */ }
    if (now !== video) return; // another one was opened meanwhile
    if (!loaded) return say(tr("The points cannot be read here: open contract/report.html where it was written, in a current browser."));
    show(loaded);
  }

  function show(loaded) {
    view = loaded;
    $("player").hidden = false;
    $("known").textContent += ` · ${view.known.map(translated).join(" · ")}`;
    over.parentElement.style.setProperty("--ratio", view.size_px[0] / view.size_px[1]);
    hasMovie = Boolean(now.source);
    movie.hidden = !hasMovie;
    if (hasMovie) movie.src = now.source;
    else withoutMovie();
    slider.min = 0;
    slider.max = Math.max(view.times[view.times.length - 1], now.s ?? 0);
    slider.step = Math.min(view.step, 1);
    drawBars();
    seek(view.times[0]);
  }

  function withoutMovie() {
    hasMovie = false;
    movie.hidden = true;
    const isHidden = view.known.some((fact) => fact.startsWith("faces hidden"));
    const why = isHidden ? tr("The video itself shows the face, and is not played") : now.source
      ? tr("This browser does not play the video, or it is no longer there")
      : tr("No browser plays this kind of video, or it is not there");
    say(tr("%(why)s: its crops are drawn where they were cut.", { why }));
    draw(time);
  }

  const say = (text) => { $("notice").textContent = text; };

  function seek(to) {
    time = Math.min(Math.max(to, 0), Number(slider.max));
    if (hasMovie) movie.currentTime = time + 0.001;
    draw(time);
  }

  function run() {
    if (!view) return;
    if (time >= view.times[view.times.length - 1] || (hasMovie && movie.ended)) seek(view.times[0]);
    isRunning = true;
    ticked = performance.now();
    movie.playbackRate = Number($("speed").value);
    if (hasMovie) movie.play().catch(() => {});
    $("play").textContent = tr("Pause");
    requestAnimationFrame(tick);
  }

  function stop() {
    isRunning = false;
    movie.pause();
    $("play").textContent = tr("Play");
  }

  function tick(at) {
    if (!isRunning || !view) return;
    if (hasMovie) {
      if (!("requestVideoFrameCallback" in movie)) draw(movie.currentTime);
      if (movie.ended) stop();
    } else {
      const last = view.times[view.times.length - 1];
      let to = time + (Math.max(0, at - ticked) / 1000) * Number($("speed").value);
      const next = view.times.find((one) => one > time);
      if (next - time > 1 && view.step < 1) to = next; // between spans, nothing was extracted
      draw(Math.min(to, last));
      if (to >= last) stop();
    }
    ticked = at;
    requestAnimationFrame(tick);
  }

  if ("requestVideoFrameCallback" in movie) {
    const onFrame = (_, frame) => {
      if (view && hasMovie) draw(frame.mediaTime);
      movie.requestVideoFrameCallback(onFrame);
    };
    movie.requestVideoFrameCallback(onFrame);
  }
  movie.addEventListener("seeked", () => { if (view && hasMovie && !isRunning) draw(movie.currentTime); });
  movie.addEventListener("error", () => { if (view && hasMovie) { stop(); withoutMovie(); } });
  movie.addEventListener("ended", stop);

  // -- Drawing

  // The frames around a time, and how far it is from the first to the second.
  function around(at) {
    const times = view.times;
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= at + 0.002) low = middle; else high = middle - 1;
    }
    const next = Math.min(low + 1, times.length - 1), gap = times[next] - times[low];
    const part = gap > 0 ? Math.min(1, Math.max(0, (at - times[low]) / gap)) : 0;
    if (gap <= SMOOTH_S) return [low, next, part];
    const near = part > 0.5 ? next : low;
    return [near, near, 0];
  }

  function draw(at) {
    if (!view) return;
    time = at;
    slider.value = at;
    $("needle").style.left = `${(100 * at) / (Number(slider.max) || 1)}%`;
    $("clock").textContent = `${at.toFixed(2)} / ${Number(slider.max).toFixed(2)} s`;
    const ratio = window.devicePixelRatio || 1, [width, height] = [over.clientWidth * ratio, over.clientHeight * ratio].map(Math.round);
    if (!width) return;
    if (over.width !== width || over.height !== height) Object.assign(over, { width, height });
    const cell = nearestCrop(at);
    if (!hasMovie) at = view.times[view.crops[cell]]; // points and boxes of the very frame whose crops are drawn
    const pen = over.getContext("2d"), [first, second, part] = around(at), numPoints = index.num_points;
    pen.clearRect(0, 0, width, height);
    const isNear = Math.abs(view.times[first] - at) < Math.max(NEAR_S, view.step) || Math.abs(view.times[second] - at) < NEAR_S;
    const value = (row) => {
      const [a, b] = [view.at(row, first), view.at(row, second)];
      return a && b ? fraction(a + (b - a) * part) : part < 0.5 ? a && fraction(a) : b && fraction(b);
    };
    const has = (row) => (part < 0.5 ? view.at(row, first) : view.at(row, second)) > 0;
    const near = part < 0.5 ? first : second;
    crops(isNear ? cell : -1);
    if (!isNear) return;
    pen.lineJoin = pen.lineCap = "round";
    const unit = Math.max(1, width / 640), colour = getComputedStyle(document.documentElement);
    for (const stream of below) {
      const row = 2 * numPoints + 4 * stream;
      if (!has(row) || !state(view, near, stream)) continue;
      const [x0, y0, x1, y1] = [0, 1, 2, 3].map((corner) => value(row + corner) * (corner % 2 ? height : width));
      if (!hasMovie) pen.drawImage(view.image, ...tile(cell, stream), x0, y0, x1 - x0, y1 - y0);
      if (!$("boxes").checked) continue;
      for (const [style, wide] of [["#14161c", 4], [colour.getPropertyValue(`--${STATES[state(view, near, stream)]}`), 2]]) {
        pen.strokeStyle = style;
        pen.lineWidth = wide * unit;
        pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
    }
    if (!$("points").checked) return;
    for (const [style, wide, points] of index.lines) {
      pen.strokeStyle = style;
      pen.lineWidth = wide * unit;
      pen.beginPath();
      let isDown = false;
      for (const point of points) {
        const isThere = has(point) && has(numPoints + point);
        if (isThere) pen[isDown ? "lineTo" : "moveTo"](value(point) * width, value(numPoints + point) * height);
        isDown = isThere;
      }
      pen.stroke();
    }
  }

  function tile(cell, stream) {
    const size = view.tile_px, column = cell % view.columns, line = Math.floor(cell / view.columns);
    return [(column * index.streams.length + stream) * size, line * size, size, size];
  }

  // Cell, of the picture of all crops, that is nearest in time.
  function nearestCrop(at) {
    let cell = 0;
    for (let one = 1; one < view.crops.length; one++)
      if (Math.abs(view.times[view.crops[one]] - at) < Math.abs(view.times[view.crops[cell]] - at)) cell = one;
    return cell;
  }

  // The crops of a cell beside the video; -1 where nothing was extracted.
  function crops(cell) {
    document.querySelectorAll("#cut canvas").forEach((canvas, stream) => {
      const pen = canvas.getContext("2d"), kind = cell < 0 ? 0 : state(view, view.crops[cell], stream);
      canvas.style.borderColor = `var(--${STATES[kind]})`;
      canvas.width = canvas.height = 192;
      if (kind) pen.drawImage(view.image, ...tile(cell, stream), 0, 0, 192, 192);
      const dot = make("i", "", "key");
      dot.style.background = index.side_colours[stream];
      canvas.nextElementSibling.replaceChildren(dot, `${NAMES[index.streams[stream]] ?? index.streams[stream]}, ${STATE_NAMES[kind]}`);
    });
  }

  // States over time, a row for each stream.
  function drawBars() {
    const width = Math.round(bars.clientWidth), colour = getComputedStyle(document.documentElement), span = Number(slider.max) || 1;
    if (!width) return;
    Object.assign(bars, { width, height: 42 });
    const pen = bars.getContext("2d"), count = view.times.length;
    index.streams.forEach((_, stream) => {
      for (let frame = 0; frame < count; frame++) {
        const from = (view.times[frame] / span) * width;
        const to = (Math.min(view.times[frame + 1] ?? span, view.times[frame] + Math.max(NEAR_S, view.step)) / span) * width;
        pen.fillStyle = colour.getPropertyValue(`--${STATES[state(view, frame, stream)]}`);
        pen.fillRect(Math.floor(from), stream * 14, Math.max(1, Math.ceil(to) - Math.floor(from)), 13);
      }
    });
  }

  // -- Buttons, keys, address

  function go(step) {
    const place = shown.indexOf(now) + step;
    if (shown[place]) open(shown[place].id);
  }

  function frame(step) {
    stop();
    const near = around(time)[0];
    seek(view.times[Math.min(Math.max(near + step, 0), view.times.length - 1)]);
  }

  function address(hash) {
    try { history.replaceState(null, "", hash || location.pathname + location.search); } catch { /* inside another page */ }
  }
  function fromAddress() {
    if (!location.hash.startsWith("#video=")) return;
    try { open(decodeURIComponent(location.hash.slice(7))); } catch { /* no address of ours */ }
  }

  $("play").addEventListener("click", () => (isRunning ? stop() : run()));
  $("speed").addEventListener("input", () => { movie.playbackRate = Number($("speed").value); });
  slider.addEventListener("input", () => { stop(); seek(Number(slider.value)); });
  for (const id of ["points", "boxes"]) $(id).addEventListener("input", () => draw(time));
  for (const button of dialog.querySelectorAll("[data-go]")) button.addEventListener("click", () => go(Number(button.dataset.go)));
  $("close").addEventListener("click", () => dialog.close());
  bars.addEventListener("click", (event) => seek((event.offsetX / bars.clientWidth) * Number(slider.max)));
  dialog.addEventListener("click", (event) => { // beside it
    const { left, right, top, bottom } = dialog.getBoundingClientRect(), { clientX: x, clientY: y } = event;
    if (event.target === dialog && event.detail && (x < left || x > right || y < top || y > bottom)) dialog.close();
  });
  dialog.addEventListener("close", () => {
    stop();
    movie.removeAttribute("src");
    movie.load();
    now = view = null;
    address("");
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
    const isSlider = event.target === slider, isButton = event.target.matches("button, input, a");
    const actions = { ",": () => view && frame(-1), ".": () => view && frame(1) };
    if (!isSlider) Object.assign(actions, { ArrowLeft: () => go(-1), ArrowRight: () => go(1) });
    if (!isButton) actions[" "] = () => (isRunning ? stop() : run());
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("resize", () => { if (view) { drawBars(); draw(time); } });
})();
