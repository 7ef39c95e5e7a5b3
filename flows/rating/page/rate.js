"use strict";
// The page on which people rate. What it shows comes from `state`; what is voted is shown as kept only once
// the server has answered. Of two clips the left one is the clock, and the other follows it.

const $ = (id) => document.getElementById(id);
const DRIFT = 0.06;  // seconds that two clips may be apart
const CHOICES = {
  pair: [["left", "Left", "1"], ["right", "Right", "2"], ["tie", "Tie", "t"], ["both_bad", "Both bad", "b"]],
  yes_no: [["yes", "Yes", "1"], ["no", "No", "2"]],
};
const SKIP = ["skip", "Skip", "s"];
const KEYS = [["Space", "play, pause"], ["← →", "a frame back, on"], ["h", "half speed"], ["l", "loop"], ["u", "undo"]];

let state = {}, number = 0, videos = [], asked = null;
let plays = 0, whole = false, loop = true, slow = false, sending = false, broken = false;
let since = 0, spent = 0;  // of the question: when its clock was last started, and milliseconds before that

async function ask(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) };
  const answer = await fetch(path, body === undefined ? {} : post);
  const told = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : {};
  if (!answer.ok) throw new Error(told.why ?? `the server says ${answer.status}`);
  return told;
}

// -- what is shown ---------------------------------------------------------------------------------------------

function show(told) {
  state = told;
  const over = Boolean(told.closed || told.finished);
  $("item").hidden = over;
  $("end").hidden = !over;
  $("undo").disabled = !told.undo;
  if (!told.closed) {
    $("progress").max = Math.max(1, told.total);
    $("progress").value = told.done;
    $("done").textContent = `${told.done} of ${told.total}`;
    $("left").textContent = told.finished ? "" : inWords(told.seconds_left);
  }
  if (over) {
    videos.forEach((video) => video.pause());
    number = 0;
    $("end-words").textContent = told.closed ? "This session is closed." : "That was all. Thank you!";
    $("end-note").textContent = told.closed ? "" : "Every vote is kept. You can close this page.";
    return;
  }
  if (told.number !== number) load(told);
  const open = told.questions.findIndex((one) => one.answer === null);
  question(told.questions[open], open);
}

function inWords(seconds) {
  if (seconds === null) return "time left: not known yet";
  const minutes = Math.round(seconds / 60);
  return minutes < 1 ? "less than a minute left" : minutes < 90 ? `about ${minutes} min left`
    : `about ${Math.round(minutes / 60)} h left`;
}

function load(told) {
  number = told.number;
  [plays, whole, broken] = [0, true, false];
  $("prompt").textContent = told.prompt;
  videos.forEach((video) => { video.removeAttribute("src"); video.load(); });
  $("clips").replaceChildren(...told.sides.map((side, n) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    const video = document.createElement("video");
    caption.textContent = told.sides.length > 1 ? `${side === "left" ? "Left" : "Right"}` : "Clip";
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: `video/${number}/${side}` });
    video.setAttribute("aria-label", told.sides.length > 1 ? `${side} clip` : "clip");
    video.addEventListener("ended", ended);
    video.addEventListener("error", () => failed(video));
    video.addEventListener("loadedmetadata", () => {
      video.style.setProperty("--shape", `${video.videoWidth} / ${video.videoHeight}`);
      rate();
    });
    if (n === 0) ["play", "pause"].forEach((name) => video.addEventListener(name, () => {
      $("play").textContent = video.paused ? "Play" : "Pause";
    }));
    figure.append(video, caption);
    return figure;
  }));
  videos = [...$("clips").querySelectorAll("video")];
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) $("play").textContent = "Play";
  else play();
}

function question(one, place) {
  const again = asked === one.name && $("answers").dataset.number === String(number);
  asked = one.name;
  $("which").textContent = state.questions.length > 1 ? `Question ${place + 1} of ${state.questions.length}` : "";
  $("words").textContent = one.words;
  const grades = Array.from({ length: Math.floor(one.high - one.low) + 1 }, (_, n) => String(one.low + n));
  const choices = [...(CHOICES[one.kind] ?? grades.map((grade) => [grade, grade, grade])), SKIP];
  $("answers").dataset.number = number;
  $("answers").replaceChildren(...choices.map(([answer, name, key]) => {
    const button = document.createElement("button"), hint = document.createElement("kbd");
    hint.textContent = key;
    button.type = "button";
    button.dataset.answer = answer;
    button.dataset.key = key;
    button.setAttribute("aria-keyshortcuts", key);
    if (["left", "right", "yes", "no"].includes(answer)) button.className = "side";
    button.append(name === key ? "" : `${name} `, hint);
    button.addEventListener("click", () => vote(answer));
    return button;
  }));
  const keys = [...choices.map(([, name, key]) => [key, name.toLowerCase()]), ...KEYS];
  $("keys").replaceChildren(...keys.map(([key, meaning]) => {
    const [pair, term, told, hint] = ["div", "dt", "dd", "kbd"].map((name) => document.createElement(name));
    hint.textContent = key;
    term.append(hint);
    told.textContent = meaning;
    pair.append(term, told);
    return pair;
  }));
  if (!again) [spent, since] = [0, performance.now()];
  allow();
}

function allow() {
  const watched = plays > 0;
  for (const button of $("answers").children) button.disabled = !watched && button.dataset.answer !== "skip";
  for (const figure of $("clips").children) figure.classList.toggle("watched", watched);
  if (!sending) note(broken ? "A clip cannot be played here: skip it." : watched ? ""
    : videos.length > 1 ? "Watch both to the end, then answer." : "Watch to the end, then answer.", broken);
}

function note(text, bad = false) {
  $("note").textContent = text;
  $("note").classList.toggle("bad", bad);
}

// -- one clock for both clips ----------------------------------------------------------------------------------

const length = () => Math.max(...videos.map((video) => video.duration || 0), 0.001);
const now = () => Math.max(...videos.map((video) => video.currentTime), 0);

function rate() {
  videos.forEach((video) => { video.playbackRate = slow ? 0.5 : 1; });
}

function play() {
  if (videos.every((video) => video.ended)) seek(0);
  videos.filter((video) => !video.ended).forEach((video) => video.play().catch(() => {}));
}

function pause() {
  videos.forEach((video) => video.pause());
}

function toggle() {
  if (videos.every((video) => video.paused || video.ended)) play();
  else pause();
}

function seek(seconds) {
  const time = Math.min(Math.max(seconds, 0), length());
  // What was jumped over was not watched; from the beginning on, it counts again.
  whole = time === 0 || (whole && time <= now());
  videos.forEach((video) => { video.currentTime = Math.min(time, video.duration || time); });
}

function ended() {
  if (!videos.every((video) => video.ended)) return;
  if (whole) {
    plays += 1;
    allow();
  }
  if (loop) {
    seek(0);
    play();
  }
}

function failed(video) {
  if (!video.getAttribute("src")) return;
  broken = true;
  allow();
}

function tick() {
  const [first, second] = videos;
  if (second && !first.paused && !first.ended && !second.seeking && !second.ended
      && Math.abs(first.currentTime - second.currentTime) > DRIFT) second.currentTime = first.currentTime;
  if (document.activeElement !== $("scrub") || !first?.paused) $("scrub").value = now() / length();
  requestAnimationFrame(tick);
}

// -- what people do --------------------------------------------------------------------------------------------

async function send(path, body) {
  if (sending) return;
  sending = true;
  try {
    const told = await ask(path, body);
    sending = false;
    show(told);
  } catch (error) {
    sending = false;
    note(`Not kept: ${error.message}. Try again.`, true);
  }
}

function vote(answer) {
  const button = [...$("answers").children].find((one) => one.dataset.answer === answer);
  if (!button || button.disabled || $("item").hidden) return;
  const seconds = (spent + (document.hidden ? 0 : performance.now() - since)) / 1000;
  send("vote", { number, question: asked, answer, seconds: Math.round(seconds * 1000) / 1000, plays });
}

function undo() {
  if (!$("undo").disabled) send("undo", {});
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !event.key.startsWith("Arrow")) return;
  const on = document.activeElement;
  if (event.key === "u") undo();
  else if ($("item").hidden) return;
  else if (event.key === " ") {
    if (["BUTTON", "SUMMARY"].includes(on?.tagName)) return;  // which it presses
    toggle();
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    if (on === $("scrub")) return;  // which it moves
    pause();
    seek(now() + (event.key === "ArrowLeft" ? -1 : 1) * state.frame_seconds);
  } else if (event.key === "h") $("half").click();
  else if (event.key === "l") $("loop").click();
  else {
    const button = [...$("answers").children].find((one) => one.dataset.key === event.key.toLowerCase());
    if (!button) return;
    vote(button.dataset.answer);
  }
  event.preventDefault();
}

$("play").addEventListener("click", toggle);
$("undo").addEventListener("click", undo);
$("half").addEventListener("click", () => {
  slow = !slow;
  $("half").setAttribute("aria-pressed", slow);
  rate();
});
$("loop").addEventListener("click", () => {
  loop = !loop;
  $("loop").setAttribute("aria-pressed", loop);
});
$("scrub").addEventListener("input", () => { pause(); seek($("scrub").value * length()); });
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { spent += performance.now() - since; pause(); }
  else since = performance.now();
});
requestAnimationFrame(tick);
ask("state").then(show, (error) => {
  $("end").hidden = false;
  $("end-words").textContent = "The page cannot be filled.";
  $("end-note").textContent = `${error.message}: load it again.`;
});
