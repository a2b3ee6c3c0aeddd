// A list that is searched, sorted and filtered by the form `tools`, and whose clips play in the place of their frames.
// Nothing is fetched: further parts of a long list are pages beside this one, which hand over their clips in a frame.
{
  const list = document.getElementById("list"), tools = document.getElementById("tools");
  const count = document.getElementById("count"), field = (name) => tools.elements[name];
  const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase(); // niño is found by NINO
  const order = new Intl.Collator(undefined, { numeric: true });
  const texts = new WeakMap();
  let items = [...list.children];

  const textOf = (item) => {
    if (!texts.has(item)) texts.set(item, folded([...item.querySelectorAll(".about, dd")].map((e) => e.textContent).join(" ")));
    return texts.get(item);
  };
  const isShown = (item) => {
    for (const choice of tools.querySelectorAll("[data-filter]"))
      if (choice.value && item.dataset[choice.dataset.filter] !== choice.value.slice(1)) return false;
    for (const [name, sign] of [["from", 1], ["to", -1]]) {
      const limit = field(name)?.value;
      // a clip without that score is out of every range
      if (limit && !(sign * (parseFloat(item.dataset[field("range").value]) - Number(limit)) >= 0)) return false;
    }
    return folded(field("search").value).split(/\s+/).every((word) => textOf(item).includes(word));
  };
  const compare = (key, sign) => (a, b) => {
    const [x, y] = [a.dataset[key] ?? "", b.dataset[key] ?? ""];
    if (!x || !y) return !x - !y; // what has none comes last
    return sign * (isNaN(x) || isNaN(y) ? order.compare(x, y) : x - y);
  };
  const sort = () => {
    const [key, sign] = field("sort").value.split(" ");
    items.sort(compare(key, Number(sign)));
    list.append(...items);
  };
  const filter = () => {
    let shown = 0;
    for (const item of items) shown += !(item.hidden = !isShown(item));
    count.textContent = tr("%(num)s of %(total)s", { num: grouped(shown), total: grouped(items.length) });
    for (const video of list.querySelectorAll("[hidden] video")) video.pause();
  };
  tools.hidden = false;
  filter();
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", (event) => {
    if (event.target.name === "sort") sort();
    filter();
    for (const video of list.querySelectorAll("video")) video.playbackRate = speed();
  });
  tools.addEventListener("reset", () => setTimeout(() => { sort(); filter(); }));

  // -- Playing

  const speed = () => Number(field("speed")?.value ?? 1);
  const follow = (item, video) => {
    const start = Number(item.dataset.start ?? 0), end = Number(item.dataset.end ?? Infinity), t = video.currentTime;
    const line = item.querySelector(".timeline"), now = line?.querySelector("i");
    if (t >= end - 0.02 && !video.paused) {
      if (field("repeat")?.checked) video.currentTime = start;
      else video.pause();
    }
    if (now) {
      now.hidden = false;
      now.style.left = `${Math.min(100, Math.max(0, (100 * (t - start)) / (end - start)))}%`;
      const buttons = [...line.querySelectorAll("button")];
      const at = buttons.findLastIndex((one) => Number(one.dataset.t) <= t + 0.001);
      buttons.forEach((one, place) => one.classList.toggle("now", place === at));
    }
    if (!video.paused) requestAnimationFrame(() => follow(item, video));
  };
  const play = (item, from) => {
    const film = item.querySelector(".film");
    if (!film) return;
    const start = from ?? Number(item.dataset.start ?? 0);
    let video = item.querySelector("video");
    if (!video) {
      item.querySelector("p.error")?.remove();
      video = document.createElement("video");
      Object.assign(video, { controls: true, muted: true, playsInline: true, src: film.href.split("#")[0] });
      video.setAttribute("aria-label", item.dataset.id);
      video.addEventListener("play", () => {
        for (const other of list.querySelectorAll("video")) if (other !== video) other.pause();
        if (video.currentTime >= Number(item.dataset.end) - 0.02) video.currentTime = Number(item.dataset.start);
        requestAnimationFrame(() => follow(item, video));
      });
      video.addEventListener("seeked", () => follow(item, video));
      video.addEventListener("error", () => {
        const said = document.createElement("p");
        said.className = "error";
        said.textContent = `${tr("Not there, or of a kind that this browser does not play:")} ${decodeURI(video.src)}`;
        const hadFocus = document.activeElement === video;
        video.replaceWith(said);
        film.hidden = false;
        if (hadFocus) film.focus();
      });
      film.after(video);
      film.hidden = true;
      video.focus();
    }
    video.playbackRate = speed();
    video.currentTime = start;
    video.play().catch(() => {}); // a file that cannot be played is told by its error
  };
  list.addEventListener("click", (event) => {
    const item = event.target.closest("article"), gloss = event.target.closest("[data-t]");
    if (gloss) play(item, Number(gloss.dataset.t));
    else if (event.target.closest(".film") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault(); // with such a key the link opens the video itself
      play(item);
    }
  });

  // -- The other parts of a long list

  if (parent !== window) {
    for (const link of list.querySelectorAll(".film")) link.href = link.href; // whole addresses: they hold anywhere
    for (const image of list.querySelectorAll("img")) image.src = image.src;
    parent.postMessage({ clips: list.innerHTML }, "*");
  } else if (document.getElementById("parts")?.querySelector("b")?.textContent === "1") {
    const parts = document.getElementById("parts"), loading = document.getElementById("loading");
    const links = [...parts.querySelectorAll("a")], frame = document.createElement("iframe");
    let next = 0, timer = 0;
    const load = () => {
      clearTimeout(timer);
      if (next === links.length) {
        frame.remove();
        parts.hidden = true;
        loading.textContent = "";
        document.getElementById(location.hash.slice(1))?.scrollIntoView();
        return;
      }
      loading.textContent = tr("Reading part %(num)s of %(total)s …", { num: next + 2, total: links.length + 1 });
      timer = setTimeout(() => {
        frame.remove();
        loading.textContent = tr("The other parts are not beside this page: it searches its own clips alone.");
      }, 20000);
      frame.src = links[next++].href;
    };
    addEventListener("message", (event) => {
      if (event.source !== frame.contentWindow || typeof event.data?.clips !== "string") return;
      const read = new DOMParser().parseFromString(event.data.clips, "text/html");
      items.push(...read.body.children);
      sort();
      filter();
      load();
    });
    frame.hidden = true;
    document.body.append(frame);
    load();
  }
}
