// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Out is the answer of an operation about one thing.
type Out[T any] struct {
	ETag     string `header:"ETag"`     // made by api.ETag; GET answers 304 by itself
	Location string `header:"Location"` // of what was created
	Body     T
}

// One answers with v.
func One[T any](v T) *Out[T] { return &Out[T]{Body: v} }

// Answer is One for what a call returns.
func Answer[T any](v T, err error) (*Out[T], error) {
	if err != nil {
		return nil, err
	}
	return One(v), nil
}

// List is the answer of an operation about many things.
type List[T any] struct{ Body Page[T] }

// Page is one page of a list.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next_page_token,omitempty" doc:"Give it as page_token to read on; absent on the last page"`
}

// Items answers with all there is: a list that needs no paging.
func Items[T any](items []T) *List[T] {
	if items == nil {
		items = []T{}
	}
	return &List[T]{Body: Page[T]{Items: items}}
}

// Paging is embedded in the input of lists (AIP-158).
type Paging struct {
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
	PageToken string `query:"page_token" maxLength:"1024" doc:"next_page_token of the page before"`
}

// Size is how many items the page holds at most.
func (p Paging) Size() int {
	if p.PageSize <= 0 {
		return 100
	}
	return min(p.PageSize, 1000)
}

// After is the last key of the page before, empty for the first page. Read Size()+1 rows after it and answer with More.
func (p Paging) After(a *API) (string, error) { return a.Key(p.PageToken) }

// More answers with at most p.Size() of items; a further item makes the token of the next page from the last key shown.
func More[T any](a *API, p Paging, items []T, key func(T) string) *List[T] {
	out := Items(items)
	if n := p.Size(); len(items) > n {
		out.Body.Items = items[:n]
		out.Body.Next = a.Token(key(items[n-1]))
	}
	return out
}

// Token makes a page token from the last key of a page. It is authenticated, so that Key only ever returns what was given here.
func (a *API) Token(key string) string {
	if key == "" {
		return ""
	}
	return tokenText.EncodeToString(append(a.mac(key), key...))
}

// Key returns the last key that the token was made from; the empty token is the beginning.
func (a *API) Key(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := tokenText.DecodeString(token)
	if err != nil || len(b) <= macLen || !hmac.Equal(b[:macLen], a.mac(string(b[macLen:]))) {
		return "", problem.Invalid("The page token is not one of ours.").At("query.page_token").Hint("Begin again without page_token.")
	}
	return string(b[macLen:]), nil
}

const macLen = 16

// tokenText is strict, so that a token has one spelling only.
var tokenText = base64.RawURLEncoding.Strict()

func (a *API) mac(key string) []byte {
	m := hmac.New(sha256.New, a.cfg.TokenKey)
	m.Write([]byte("page token\x00" + key))
	return m.Sum(nil)[:macLen:macLen]
}

// ETag quotes a version for the header (RFC 9110, 8.8.3).
func ETag(version string) string { return `"` + version + `"` }

// IfMatch is embedded in the input of writes that replace what the caller has read.
type IfMatch struct {
	IfMatch string `header:"If-Match" doc:"ETag of what was read; the write is refused when it is no longer current"`
}

// Check refuses when the caller named an ETag and it is not the current one.
func (m IfMatch) Check(etag string) error {
	if m.IfMatch == "" || m.IfMatch == "*" || matches(m.IfMatch, etag) {
		return nil
	}
	return problem.Precondition("It has changed since you read it.").Hint("Read it again and repeat the change.")
}

func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
