// The two clips of a pair play together, only while they are on the screen, and stop at a person's word.
(() => {
  "use strict";
  document.documentElement.classList.remove("no-script");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const all = document.getElementById("play-all");
  const pairs = [...document.querySelectorAll(".mover")].map((card) => {
    const videos = [...card.querySelectorAll("video")];
    const button = card.querySelector("button");
    const slider = card.querySelector("input");
    const pair = { videos, wanted: !still, visible: false };
    pair.update = () => {
      const play = pair.wanted && pair.visible;
      videos.forEach((video) => (play ? video.play().catch(() => {}) : video.pause()));
      button.textContent = pair.wanted ? "Pause" : "Play";
    };
    videos.forEach((video) => video.removeAttribute("controls"));
    button.addEventListener("click", () => { pair.wanted = !pair.wanted; pair.update(); });
    slider.addEventListener("input", () => {
      pair.wanted = false;
      pair.update();
      // Not to the very end: there a looping video jumps back to its start.
      videos.forEach((video) => { video.currentTime = 0.999 * slider.value * (video.duration || 0); });
    });
    const [lead, other] = videos;
    lead.addEventListener("timeupdate", () => {
      if (lead.paused) return;
      slider.value = lead.currentTime / (lead.duration || 1);
      if (Math.abs(lead.currentTime - other.currentTime) > 0.1) other.currentTime = lead.currentTime;
    });
    return pair;
  });
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const pair = pairs.find((candidate) => candidate.videos[0] === entry.target);
    pair.visible = entry.isIntersecting;
    pair.update();
  }));
  pairs.forEach((pair) => { pair.update(); seen.observe(pair.videos[0]); });
  if (all) {
    const label = () => { all.textContent = pairs.some((pair) => pair.wanted) ? "Pause all clips" : "Play all clips"; };
    all.addEventListener("click", () => {
      const wanted = !pairs.some((pair) => pair.wanted);
      pairs.forEach((pair) => { pair.wanted = wanted; pair.update(); });
      label();
    });
    document.addEventListener("click", label);
    label();
  }
})();
