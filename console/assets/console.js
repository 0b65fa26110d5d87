// SPDX-License-Identifier: AGPL-3.0-only
// Small comforts; every page works without them.

// A field that is only read, such as a new token, selects itself.
for (const input of document.querySelectorAll('input[data-select]')) {
  input.addEventListener('focus', () => input.select());
}

// A wide table or text that scrolls can be scrolled by keyboard.
const reach = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth && getComputedStyle(target).overflowX === 'auto') target.tabIndex = 0;
    else target.removeAttribute('tabindex');
  }
});
for (const box of document.querySelectorAll('.scroll, .card, pre, main > table')) reach.observe(box);

// A field whose text goes elsewhere has a button that copies it, and counts while somebody types.
for (const button of document.querySelectorAll('button[data-copy]')) {
  const field = document.getElementById(button.dataset.copy);
  button.hidden = !navigator.clipboard;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(field.value);
    button.firstChild.textContent = 'Copied';
  });
}
for (const count of document.querySelectorAll('[data-count]')) {
  const { limit } = count.dataset;
  document.getElementById(count.dataset.count).addEventListener('input', ({ target }) => {
    const used = [...target.value.trim()].length;
    count.textContent = `${used} of ${limit} characters`;
    count.classList.toggle('over', used > Number(limit));
  });
}

// Escape closes the menu that is open, and a menu closes when another opens.
const menus = () => document.querySelectorAll('details.menu[open]');
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  for (const menu of menus()) {
    menu.open = false;
    menu.querySelector('summary').focus();
  }
});
document.addEventListener('toggle', (event) => {
  if (!event.target.open || !event.target.classList?.contains('menu')) return;
  for (const menu of menus()) if (menu !== event.target) menu.open = false;
}, true);

// A form is sent once, however often its button is pressed.
document.addEventListener('submit', (event) => {
  if (event.defaultPrevented || event.target.method !== 'post') return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = 'yes';
});
addEventListener('pageshow', () => {
  for (const form of document.forms) delete form.dataset.sent;
});

// A box at the head of a table ticks all boxes of its name.
for (const all of document.querySelectorAll('input[data-all]')) {
  const boxes = () => [...all.form.querySelectorAll(`input[name="${all.dataset.all}"]`)];
  all.addEventListener('change', () => boxes().forEach((box) => { box.checked = all.checked; }));
  all.form.addEventListener('change', () => {
    const ticked = boxes().filter((box) => box.checked).length;
    all.checked = ticked > 0 && ticked === boxes().length;
    all.indeterminate = ticked > 0 && !all.checked;
  });
}

// A filter suggests keys, and what may follow the key of its last word. Without this it suggests examples.
for (const form of document.querySelectorAll('form[data-filter]')) {
  const input = form.querySelector('input[list]');
  const words = JSON.parse(form.querySelector('.words').textContent);
  const list = input.list;
  const examples = [...list.options].map((option) => [option.value.split(' ').at(-1), option.label]);
  const offer = () => {
    const [, before, word] = /^(.*?)((?:"[^"]*"?|[^\s"])*)$/s.exec(input.value);
    const [, minus, key, value] = /^(-?)(?:([a-z][a-z0-9._-]*):)?(.*)$/s.exec(word);
    const known = key && words[key];
    const found = known
      ? known.filter((v) => v.toLowerCase().startsWith(value.toLowerCase())).map((v) => [`${minus}${key}:${v}`, ''])
      : Object.keys(words).filter((k) => !k.endsWith('.') && k.startsWith(value)).map((k) => [`${minus}${k}:`, '']);
    const options = (word ? found : examples).slice(0, 30).map(([text, label]) => Object.assign(document.createElement('option'), { value: before + text, label: label || text }));
    list.replaceChildren(...options);
  };
  input.addEventListener('input', offer);
}
