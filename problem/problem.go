// SPDX-License-Identifier: AGPL-3.0-only

// Package problem is what went wrong, three times: a kind for programs, a sentence and a hint for people, and the
// cause for operators. One table maps kinds to HTTP statuses and exit codes.
package problem

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is what a program may decide on.
type Kind string

// The kinds. Anything that is not an *Error is Internal.
const (
	KindInvalid         Kind = "invalid"
	KindUnauthenticated Kind = "unauthenticated"
	KindForbidden       Kind = "forbidden" // refused by policy; Rule names it
	KindNotFound        Kind = "not-found"
	KindConflict        Kind = "conflict"
	KindPrecondition    Kind = "precondition-failed"
	KindTooLarge        Kind = "too-large"
	KindUnprocessable   Kind = "unprocessable"
	KindLimited         Kind = "rate-limited"
	KindUnavailable     Kind = "unavailable"
	KindInternal        Kind = "internal"
)

// Kinds lists every kind with its HTTP status, the exit code of the command line (1 failed, 3 refused by policy) and a title.
var Kinds = map[Kind]struct {
	Status, Exit int
	Title        string
}{
	KindInvalid:         {400, 1, "The request is not valid"},
	KindUnauthenticated: {401, 1, "Sign in first"},
	KindForbidden:       {403, 3, "Refused by policy"},
	KindNotFound:        {404, 1, "There is no such thing"},
	KindConflict:        {409, 1, "It conflicts with what is there"},
	KindPrecondition:    {412, 1, "It has changed since it was read"},
	KindTooLarge:        {413, 1, "It is too large"},
	KindUnprocessable:   {422, 1, "The request cannot be carried out"},
	KindLimited:         {429, 1, "Too many requests"},
	KindUnavailable:     {503, 1, "It is not available now"},
	KindInternal:        {500, 1, "Something failed inside"},
}

// Field is one faulty part of the input.
type Field struct {
	At      string `json:"location"`
	Message string `json:"message"`
}

// Error is a problem with a kind. Build it with Invalid, NotFound and the others, then Hint, At and Because.
type Error struct {
	Kind   Kind
	Text   string // one sentence for the person who caused it; never internal detail
	Help   string // what to try next
	Rule   string // the policy rule that refused, such as "update.floor"
	Fields []Field
	Cause  error // for operators: logged, never shown
}

func (e *Error) Error() string {
	s := e.Text
	if e.Rule != "" {
		s += " (rule " + e.Rule + ")"
	}
	if e.Help != "" {
		s += "; " + e.Help
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Cause }

// Hint adds what to try next.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Help = fmt.Sprintf(format, args...)
	return e
}

// Because keeps the cause for operators.
func (e *Error) Because(err error) *Error { e.Cause = err; return e }

// At names the faulty part of the input.
func (e *Error) At(location string) *Error {
	e.Fields = append(e.Fields, Field{At: location, Message: e.Text})
	return e
}

func newError(k Kind, format string, args []any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Invalid is input that can never be accepted as it is.
func Invalid(format string, args ...any) *Error { return newError(KindInvalid, format, args) }

// Unauthenticated asks the caller to say who it is.
func Unauthenticated(format string, args ...any) *Error {
	return newError(KindUnauthenticated, format, args)
}

// Forbidden is a refusal by the policy rule named.
func Forbidden(rule, format string, args ...any) *Error {
	e := newError(KindForbidden, format, args)
	e.Rule = rule
	return e
}

// NotFound also hides what the caller may not see.
func NotFound(format string, args ...any) *Error { return newError(KindNotFound, format, args) }

// Conflict is a request that the present state does not allow.
func Conflict(format string, args ...any) *Error { return newError(KindConflict, format, args) }

// Precondition is a write based on a version that is no longer the current one.
func Precondition(format string, args ...any) *Error { return newError(KindPrecondition, format, args) }

// TooLarge is input beyond a stated limit.
func TooLarge(format string, args ...any) *Error { return newError(KindTooLarge, format, args) }

// Unprocessable is input that is well formed and still cannot be carried out, such as a reused idempotency key.
func Unprocessable(format string, args ...any) *Error {
	return newError(KindUnprocessable, format, args)
}

// Limited asks the caller to slow down.
func Limited(format string, args ...any) *Error { return newError(KindLimited, format, args) }

// Unavailable is worth a retry later.
func Unavailable(format string, args ...any) *Error { return newError(KindUnavailable, format, args) }

// Of returns the *Error in err's chain; any other error becomes Internal with err as its cause. Of(nil) is nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindInternal, Text: "Something failed inside; the log of the platform says what.", Cause: err}
}

// Is reports whether err is a problem of kind k.
func Is(err error, k Kind) bool { return err != nil && Of(err).Kind == k }

// Or names what somebody may choose from: "a", "a or b", "a, b or c".
func Or[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}
