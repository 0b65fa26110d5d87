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
