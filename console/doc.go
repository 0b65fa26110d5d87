// SPDX-License-Identifier: AGPL-3.0-only

// Package console is the kit behind every page for people: a frame, parts, slots, forms and live regions.
//
// Promises
//   - Every page reads and every form submits without JavaScript; scripts only make it livelier.
//   - No inline script or style exists: the Content-Security-Policy allows this origin and nothing else.
//   - Every page and form declares the verb that it needs, or that it is public.
//   - Nothing is told by colour alone; light and dark, keyboard and screen reader are first class.
//
// A page's template is the body of <main>; the frame stands around it. It may use the parts of kit/*.html and the
// functions of funcs.go. The kit knows no stage and no tenant: who asks and what they hold is handed in by Config.
package console
