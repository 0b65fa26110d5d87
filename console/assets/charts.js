// SPDX-License-Identifier: AGPL-3.0-only
// Draws every <figure data-chart> from the JSON in it with uPlot; the table in it stays for those who do not see the drawing.

const tones = ['--line-1', '--line-2', '--line-3', '--line-4'];

// times are the axis' words by the distance of its ticks in seconds: UTC and 24 hours, as everywhere on the page.
const times = [
  [31536000, '{YYYY}', null, null, null, null, null, null, 1],
  [2419200, '{MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [86400, '{DD} {MMM}', '\n{YYYY}', null, null, null, null, null, 1],
  [60, '{HH}:{mm}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [1, '{HH}:{mm}:{ss}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [0.001, '{ss}.{fff}', '\n{YYYY}-{MM}-{DD} {HH}:{mm}', null, null, null, '\n{HH}:{mm}', null, 1],
];

// colour asks for the computed colour: a canvas cannot read light-dark().
function colour(figure, name) {
  const probe = document.createElement('i');
  probe.className = 'probe ' + name.slice(2);
  figure.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

// span keeps at least a minute in sight, so that a young series is not drawn over years.
function span(u, from, to) {
  const x = u.data[0];
  if (x[0] === x[x.length - 1]) from = to = x[0];
  const lack = 60 - (to - from);
  return lack > 0 ? [from - lack / 2, to + lack / 2] : [from, to];
}

// room leaves air above and below the lines; what never falls below zero stands on it.
function room(_, low, high) {
  if (low == null) return [0, 1];
  const air = (high - low || Math.abs(high) || 1) * 0.12;
  const floor = low >= 0 && low < high * 0.6 ? 0 : low - air;
  return [floor, high + air];
}

function draw(figure) {
  const plot = figure.querySelector('.plot');
  const { names, axes, data } = JSON.parse(figure.querySelector('script').textContent);
  if (!window.uPlot || !data[0].length) return;
  const ink = colour(figure, '--ink-soft');
  const grid = { stroke: colour(figure, '--rule'), width: 1 };
  const font = '12px ' + getComputedStyle(figure).fontFamily;
  const size = () => ({ width: plot.clientWidth, height: 220 });
  plot.replaceChildren();
  figure.chart?.destroy();
  const sides = [...new Set(axes)].sort(); // 0 is the left axis, 1 the right one
  const last = data[0].length - 1;
  const tone = (i) => colour(figure, tones[i % tones.length]);
  const alone = (side) => axes.filter((a) => a === side).length === 1 && sides.length > 1; // an axis of one line has its colour
  figure.chart = new uPlot({
    ...size(),
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
    cursor: { points: { size: 7 }, y: false },
    legend: { show: names.length > 1 },
    scales: { x: { time: true, range: span }, ...Object.fromEntries(sides.map((side) => ['y' + side, { range: room }])) },
    // Where nothing is pointed at, the legend reads the newest values.
    hooks: { ready: [(u) => u.setLegend({ idx: last })], setLegend: [(u) => { if (u.legend.idx == null) u.setLegend({ idx: last }); }] },
    axes: [
      { stroke: ink, font, values: times, space: 84, grid: { show: false }, ticks: { ...grid, size: 4 } },
      ...sides.map((side) => ({
        scale: 'y' + side, side: side ? 1 : 3, font, ticks: { show: false }, size: 52, grid: side ? { show: false } : grid,
        stroke: alone(side) ? tone(axes.indexOf(side)) : ink,
      })),
    ],
    series: [{ label: 'UTC', value: '{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}' }, ...names.map((label, i) => ({
      label, scale: 'y' + axes[i], width: 1.75, stroke: tone(i), points: { show: data[0].length < 60, size: 5 }, spanGaps: false,
      fill: names.length === 1 ? colour(figure, '--line-fill') : undefined,
    }))],
  }, data, plot);
  figure.resize?.disconnect();
  figure.resize = new ResizeObserver(() => figure.chart.setSize(size()));
  figure.resize.observe(plot);
}

function drawAll(root) {
  for (const figure of root.querySelectorAll('figure[data-chart]')) {
    const json = figure.querySelector('script').textContent;
    if (figure.drawn === json) continue;
    figure.drawn = json;
    draw(figure);
  }
}

drawAll(document);
document.addEventListener('htmx:after:swap', () => drawAll(document));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  for (const figure of document.querySelectorAll('figure[data-chart]')) draw(figure);
});
