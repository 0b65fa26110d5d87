// SPDX-License-Identifier: AGPL-3.0-only
// Makes or uses a passkey for forms that say data-passkey="create" or "get" (WebAuthn Level 3, JSON forms of 5.1.9 and 5.1.10).

async function post(url, body) {
  const res = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const out = await res.json();
  if (!res.ok) throw new Error([out.detail, out.hint].filter(Boolean).join(' '));
  return out;
}

const acts = {
  create: (options) => navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) }),
  get: (options) => navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) }),
};

// said are the browser's own refusals in words.
const said = {
  NotAllowedError: 'It was cancelled or took too long. Try again.',
  InvalidStateError: 'This device has a passkey for this already.',
  SecurityError: 'Passkeys need the host name that the platform was set up with; open it under that name.',
};

for (const form of document.querySelectorAll('form[data-passkey]')) {
  const trouble = form.querySelector('[data-trouble]');
  const button = form.querySelector('button');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    trouble.hidden = true;
    button.disabled = true;
    try {
      if (!window.PublicKeyCredential?.parseCreationOptionsFromJSON) throw new Error('This browser is too old for passkeys.');
      const { publicKey } = await post(form.dataset.begin, Object.fromEntries(new FormData(form)));
      const key = await acts[form.dataset.passkey](publicKey);
      await post(form.dataset.finish, key.toJSON());
      location.assign(form.dataset.next);
    } catch (err) {
      trouble.textContent = said[err.name] ?? err.message;
      trouble.hidden = false;
      button.disabled = false;
      button.focus();
    }
  });
}
