// Sets the chosen theme before the first paint; without a choice, the system's.
// A classic script, not a module, because a module would run after the first paint.
(() => {
  const KEY = "srp4ctr-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is disabled: use the system's theme
    }
  };
  const apply = (choice) => {
    if (choice) document.documentElement.dataset.theme = choice;
  };
  const announce = () => dispatchEvent(new Event("themechange"));
  apply(stored());
  dark.addEventListener("change", announce);
  window.srp4ctrTheme = {
    isDark: () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark",
    choose: (choice) => {
      apply(choice);
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // Storage is disabled: the choice lasts until the page is closed.
      }
      announce();
    },
  };
})();
