(function () {
  var box = document.getElementById("find"), rows = [].slice.call(document.querySelectorAll("#lines tr"));
  var chips = [].slice.call(document.querySelectorAll("[data-only]")), shown = document.getElementById("shown");
  var only = "stays";
  function fits(row) {
    var group = row.getAttribute("data-group");
    return only === "all" || (only === "stays" ? group !== "Removed" :
      only === "weaker" ? row.getAttribute("data-verdict") === "weaker" : group === only);
  }
  function show() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean), n = 0;
    var all = words.length > 0 && only === "stays";
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var yes = (all || fits(row)) && words.every(function (word) { return text.indexOf(word) >= 0; });
      row.hidden = !yes;
      n += yes ? 1 : 0;
    });
    shown.textContent = n + " of " + rows.length + " attributes";
    chips.forEach(function (chip) {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("data-only") === only));
    });
  }
  chips.forEach(function (chip) {
    chip.addEventListener("click", function () { only = chip.getAttribute("data-only"); show(); });
  });
  box.addEventListener("input", show);
  document.getElementById("tools").hidden = false;
  show();
})();
