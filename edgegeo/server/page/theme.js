// Runs before the first paint, so that a chosen theme does not flash: "auto" follows the system.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("edgegeo-theme");
    } catch {
      return null; // storage is off: the choice lasts as long as the page
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-label", `Theme: ${theme}. Change it`);
    dispatchEvent(new Event("themechange"));
  };
  apply(THEMES.includes(stored()) ? stored() : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
  addEventListener("DOMContentLoaded", () => {
    apply(document.documentElement.dataset.theme);
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
      try {
        localStorage.setItem("edgegeo-theme", next);
      } catch {
        // as above
      }
      apply(next);
    });
  });
})();
