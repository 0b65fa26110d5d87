// SPDX-License-Identifier: AGPL-3.0-only

// Package inform tells the users of a product something, and proves when, how, to whom and in which language: what the
// manufacturer owes them in a case (CRA Article 14(8)), at the end of support (13(19)) and of its business (13(23)).
//
//	Contact   who is to be told: role, channel, language, products; name and address sealed under a key of its own
//	Campaign  what is told: a draft that a person sends once, or made and sent by the platform from a dated template
//	Delivery  one contact's part of it, and what the mail server or the receiver answered
//	Proof     the campaign as it was sent, who was meant, counts, digests and every delivery without its address
//
// It needs no connected device; where there are some, the same text goes to them as the command notice.
//
// Invariants:
//   - What is sent is frozen with whom it is for, in one transaction: text, documents, one delivery for each contact. It is
//     sent once, whoever else sends it at the same moment, and is never changed.
//   - The delivery is on disk before the mail: a process that dies in between sends it again, under the same Message-ID or
//     webhook-id, and never a second delivery.
//   - A slow or dead receiver delays nobody but itself; campaigns take turns.
//   - "Handed over" is the word of the mail server or of the receiver, kept with it; it is not "read". Read is who pressed
//     the button behind the link of the own mail, and nobody has to.
//   - An erased contact is told nothing more and its name and address are unreadable; the proof keeps a keyed hash and
//     counts.
//   - A notice of the end of support or of the business is made exactly once for each event, whatever breaks off.
//   - Telling the users of a case is an event of that case, written with the sending. Only a person sends a draft.
//
// Events consumed: support.notice, business.ceasing. Events emitted: campaign.sent, campaign.finished.
package inform
