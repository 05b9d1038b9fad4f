// make lint-js: what eslint itself recommends as errors, without a package of its own.

const BROWSER = ["window", "document", "navigator", "fetch", "URL", "URLSearchParams", "Blob", "Image", "XMLSerializer", "getComputedStyle",
  "setTimeout", "clearTimeout", "setInterval", "clearInterval", "MutationObserver", "ResizeObserver", "MessageChannel"];

const ERRORS = ["constructor-super", "for-direction", "getter-return", "no-async-promise-executor", "no-class-assign", "no-compare-neg-zero",
  "no-cond-assign", "no-const-assign", "no-constant-condition", "no-control-regex", "no-debugger", "no-dupe-args", "no-dupe-class-members",
  "no-dupe-else-if", "no-dupe-keys", "no-duplicate-case", "no-empty", "no-empty-pattern", "no-eval", "no-fallthrough", "no-func-assign",
  "no-global-assign", "no-implied-eval", "no-import-assign", "no-irregular-whitespace", "no-loss-of-precision", "no-new-func",
  "no-prototype-builtins", "no-redeclare", "no-self-assign", "no-shadow-restricted-names", "no-sparse-arrays", "no-this-before-super", "no-undef",
  "no-unreachable", "no-unsafe-finally", "no-unused-vars", "no-useless-escape", "no-var", "prefer-const", "eqeqeq", "use-isnan", "valid-typeof"];

export default [{
  languageOptions: { globals: Object.fromEntries(BROWSER.map((name) => [name, "readonly"])) },
  linterOptions: { reportUnusedDisableDirectives: "error" },
  rules: Object.fromEntries(ERRORS.map((rule) => [rule, "error"])),
}];
