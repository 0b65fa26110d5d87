// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

type requestIDKey struct{}

// RequestID names the request in logs and problems.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// ServeHTTP names the request, sets the headers that every answer carries and hands it to its operation. A panic of an
// operation is one failed request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, "req_"+rand.Text()[:16]))
	h := w.Header()
	h.Set("Request-Id", RequestID(r.Context()))
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if !strings.HasPrefix(r.Host, "localhost") { // other servers of a developer share that name
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	h.Set("Cache-Control", "no-store")
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			a.Fail(w, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	if err := a.rates.Take(Address(r), 1); err != nil {
		a.refuse(w, r, err)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// guard checks, in this order: origin, who asks, its rate, the verb, then limits the body and looks for a repeated POST.
func (a *API) guard(op Op, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.cross.Check(r); err != nil {
			a.refuse(w, r, problem.Forbidden("api.cross-origin", "This request came from another site.").Because(err))
			return
		}
		caller := ""
		if !op.Public {
			ctx, err := a.cfg.Authenticate(r)
			if err != nil {
				// Guessing is slow, and has a bucket of its own: it takes nothing from those who come from the same address
				// with a token that is good.
				if slow := a.rates.Take("guess "+Address(r), failureCost); slow != nil && problem.Is(err, problem.KindUnauthenticated) {
					err = slow
				}
				a.refuse(w, r, err)
				return
			}
			r = r.WithContext(ctx)
			caller = a.cfg.Caller(ctx)
			if err := a.rates.Take(caller, 1); err != nil {
				a.refuse(w, r, err)
				return
			}
			if !a.cfg.Holds(ctx, op.Verb) {
				a.refuse(w, r, problem.Forbidden("access."+op.Verb, "Nothing that you hold includes %s.", op.Verb).
					Hint("Ask an owner of the tenant for a role that includes it."))
				return
			}
		}
		if r.ContentLength > op.MaxBody {
			a.refuse(w, r, tooLarge(op.MaxBody))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, op.MaxBody)
		if inm := r.Header.Get("If-None-Match"); inm != "" && r.Method == http.MethodGet {
			w = &conditional{ResponseWriter: w, want: inm}
		}
		if r.Method == http.MethodPost && r.Header.Get("Idempotency-Key") != "" && !op.Public { // a stranger keeps nothing here
			if err := a.once(op, caller, w, r, next); err != nil {
				a.refuse(w, r, err)
			}
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if problem.Is(err, problem.KindUnauthenticated) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="openthings"`)
	}
	if wait, ok := RetryAfter(err); ok {
		w.Header().Set("Retry-After", wait)
	}
	a.Fail(w, r, err)
}

// conditional turns a 200 with the ETag that the caller already has into a 304 without body.
type conditional struct {
	http.ResponseWriter
	want  string
	empty bool
}

func (c *conditional) WriteHeader(status int) {
	etag := c.Header().Get("ETag")
	if status == http.StatusOK && etag != "" && matches(c.want, etag) {
		c.empty = true
		c.Header().Del("Content-Type")
		c.Header().Del("Content-Length")
		status = http.StatusNotModified
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *conditional) Write(b []byte) (int, error) {
	if c.empty {
		return len(b), nil
	}
	return c.ResponseWriter.Write(b)
}

func (c *conditional) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// tracked remembers whether the answer has begun.
type tracked struct {
	http.ResponseWriter
	begun bool
}

func (t *tracked) WriteHeader(status int) { t.begun = true; t.ResponseWriter.WriteHeader(status) }
func (t *tracked) Write(b []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(b)
}
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// Bearer returns the bearer token of the request (RFC 6750), or "".
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
