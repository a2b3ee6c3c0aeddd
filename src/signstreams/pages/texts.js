// Words of the scripts in the language of the page: TEXTS has the translation of each English text, none for a page in
// English. FACTS are patterns and translations of what files say in English.
const filled = (text, values) => text.replace(/%(?:\((\w+)\)s|%)/g, (_, name) => (name ? values[name] : "%"));
const tr = (text, values = {}) => filled(TEXTS[text] ?? text, values);
const grouped = (num) => num.toLocaleString("en").replaceAll(",", document.documentElement.lang === "en" ? "," : "\u202f");
const plural = (one, many, num) => tr(num === 1 ? one : many, { num: grouped(num) });
const translated = (fact) => {
  for (const [pattern, text] of FACTS) {
    const found = fact.match(new RegExp(`^${pattern}$`, "s"));
    if (found) return filled(text, found.groups);
  }
  return fact;
};
