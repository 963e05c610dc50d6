// Arrow keys step through a thread: they follow the links to the step before and after. Nothing else is done here.
document.addEventListener("keydown", function (event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { return; }
  var rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  var link = rel && document.querySelector("a[rel=" + rel + "]");
  if (link) { event.preventDefault(); link.click(); }
});
