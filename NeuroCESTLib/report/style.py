"""Style sheet of HTML pages: light and dark on the screen, black on white A4 pages when printed."""

from __future__ import annotations

STYLE_SHEET = """
:root { color-scheme: light dark; --ink: #1d2328; --soft: #56616b; --paper: #ffffff; --line: #d5dade; --tint: #f3f5f7;
  --link: #0b5cad; --warn-line: #b35900; --warn: #fff4e5; --good: #1b7f4b; --check: #a35200; --failed: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --soft: #a3adb6; --paper: #16191c; --line: #3a4147;
  --tint: #21262a; --link: #7fb8f0; --warn-line: #e0a050; --warn: #33270f; --good: #62c493; --check: #e8a95c;
  --failed: #f28b82; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, "Noto Sans", "Liberation Sans", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p { margin: .5rem 0; }
ul, ol { margin: .5rem 0; padding-left: 1.4rem; }
li { margin: .2rem 0; }
a { color: var(--link); }
.subtitle { color: var(--soft); margin: 0 0 .8rem; font-size: 1.05rem; }
.small, figcaption, footer { font-size: .87rem; color: var(--soft); }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .6rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .5rem 1.5rem;
  margin: .8rem 0; }
.facts dt { font-size: .8rem; color: var(--soft); }
.facts dd { margin: 0; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: .5rem 0; font-size: .93rem; }
.badge { display: inline-block; padding: .05em .55em; border: 1.5px solid currentColor; border-radius: .7em;
  font-size: .82em; font-weight: 600; white-space: nowrap; }
h1 .badge { font-size: .5em; vertical-align: middle; }
.good { color: var(--good); } .check { color: var(--check); } .failed { color: var(--failed); }
.warnings { background: var(--warn); border-left: 5px solid var(--warn-line); padding: .7rem 1rem; margin: 1rem 0;
  border-radius: 3px; }
.warnings h2 { border: 0; margin: 0 0 .3rem; font-size: 1.05rem; padding: 0; color: var(--warn-line); }
.warnings ul { margin: 0; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 50%; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
td.number { white-space: nowrap; }
.number { text-align: right; }
tbody tr:hover { background: var(--tint); }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; border-radius: 4px; }
figcaption { margin-top: .35rem; }
@media (prefers-color-scheme: dark) { img { padding: 4px; } }
@page { size: A4; margin: 14mm 13mm 16mm; @bottom-right { content: counter(page) " / " counter(pages);
  font: 8pt sans-serif; color: #666; } }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --tint: #fff; --link: #000;
    --warn-line: #b35900; --warn: #fff4e5; --good: #1b7f4b; --check: #a35200; --failed: #b3261e; }
  body { max-width: none; padding: 0; font-size: 9.5pt; line-height: 1.4; }
  h1 { font-size: 18pt; } h2 { font-size: 13pt; margin-top: 1.2rem; } h3 { font-size: 11pt; }
  h1, h2, h3, caption { break-after: avoid; }
  nav { display: none; }
  .new-page { break-before: page; }
  .warnings, .badge { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  figure, tr, li, .warnings { break-inside: avoid; }
  thead { display: table-header-group; }
  .table { overflow: visible; }
  table { font-size: 7.8pt; min-width: 0; }
  th, td { padding: .15rem .5rem .15rem 0; }
  td.number { white-space: normal; }
  p { orphans: 3; widows: 3; }
  img { padding: 0; max-height: 235mm; width: auto; }
  a { text-decoration: none; }
}
"""
"""Style of every page; the colours of both themes have a contrast of at least 4.5 to 1."""
