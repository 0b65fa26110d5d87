// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openthings-platform/openthings/problem"
)

// Problem is a failure as the caller sees it (RFC 9457).
type Problem struct {
	Type      string          `json:"type" doc:"A page that explains this kind" example:"/problems/not-found"`
	Title     string          `json:"title"`
	Status    int             `json:"status"`
	Detail    string          `json:"detail,omitempty"`
	Hint      string          `json:"hint,omitempty" doc:"What to try next"`
	Rule      string          `json:"rule,omitempty" doc:"The policy rule that refused"`
	Errors    []problem.Field `json:"errors,omitempty" doc:"Each faulty part of the input"`
	RequestID string          `json:"request_id,omitempty" doc:"Names this request in the log of the platform"`
}

// Error makes Problem an error for huma.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of problems.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// ProblemOf turns err into what the caller may see.
func ProblemOf(ctx context.Context, err error) *Problem {
	e := problem.Of(err)
	k := problem.Kinds[e.Kind]
	return &Problem{Type: "/problems/" + string(e.Kind), Title: k.Title, Status: k.Status, Detail: e.Text, Hint: e.Help,
		Rule: e.Rule, Errors: e.Fields, RequestID: RequestID(ctx)}
}

// problem logs what failed inside and returns what the caller may see.
func (a *API) problem(ctx context.Context, err error) *Problem {
	var max *http.MaxBytesError
	if errors.As(err, &max) && !problem.Is(err, problem.KindTooLarge) {
		err = tooLarge(max.Limit)
	}
	p := ProblemOf(ctx, err)
	if p.Rule != "" && a.cfg.Refused != nil {
		a.cfg.Refused(ctx, p.Rule, p.Detail)
	}
	if p.Status >= 500 {
		a.cfg.Log.ErrorContext(ctx, "request failed", "request_id", p.RequestID, "err", err)
	}
	return p
}

// Fail logs err if it is internal, and writes it as a problem.
func (a *API) Fail(w http.ResponseWriter, r *http.Request, err error) {
	a.problem(r.Context(), err).Write(w)
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Del("ETag")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

func tooLarge(limit int64) error {
	return problem.TooLarge("The body is larger than %d bytes.", limit)
}

// adoptProblems makes huma's own refusals (validation, negotiation) problems of this house. huma offers package
// variables for it and nothing narrower.
var adoptProblems = sync.OnceFunc(func() {
	huma.NewErrorWithContext = func(c huma.Context, status int, msg string, errs ...error) huma.StatusError {
		ctx := context.Background()
		if c != nil {
			ctx = c.Context()
		}
		return fromHuma(ctx, status, msg, errs)
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(context.Background(), status, msg, errs)
	}
})

func fromHuma(ctx context.Context, status int, msg string, errs []error) *Problem {
	e := &problem.Error{Kind: problem.KindInternal}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		e = problem.TooLarge("The body is larger than this operation takes.")
	case status >= 400 && status < 500:
		e = problem.Invalid("%s.", sentence(msg))
	}
	for _, err := range errs {
		var d huma.ErrorDetailer
		switch {
		case err == nil:
		case errors.As(err, &d):
			x := d.ErrorDetail()
			e.Fields = append(e.Fields, problem.Field{At: x.Location, Message: x.Message})
		default:
			e.Fields = append(e.Fields, problem.Field{Message: err.Error()})
		}
	}
	if e.Kind == problem.KindInternal {
		e = problem.Of(fmt.Errorf("huma: %s: %w", msg, errors.Join(errs...)))
	}
	return ProblemOf(ctx, e)
}

func sentence(s string) string {
	if s == "" {
		return "The request is not valid"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var problemHTML = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>Kind <code>{{.Kind}}</code>, HTTP status {{.Status}}.</p>
<p>The answer's <code>detail</code> says what happened, <code>hint</code> what to try next, <code>errors</code> which part of
the input was faulty, <code>rule</code> which policy refused. Give <code>request_id</code> to the operator of the platform to find it in the log.</p>
</html>
`))

func problemPage(w http.ResponseWriter, r *http.Request) {
	kind := problem.Kind(r.PathValue("kind"))
	k, ok := problem.Kinds[kind]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	problemHTML.Execute(w, map[string]any{"Title": k.Title, "Kind": kind, "Status": k.Status})
}
