// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// DefaultMaxBody is the largest request body, in bytes, of an operation that states no other limit.
const DefaultMaxBody = 1 << 20

// Config is what the kit needs from the house.
type Config struct {
	Title   string // of the OpenAPI document
	Version string
	DB      *store.DB // the platform handle, with Schema: keeps idempotency keys
	Clock   clock.Clock
	Log     *slog.Logger
	// TokenKey authenticates page tokens; 32 bytes. Without one a random key is made, and tokens end with the process.
	TokenKey []byte
	// Authenticate says who asks, or refuses with a problem. It is not called for public operations.
	Authenticate func(*http.Request) (context.Context, error)
	// Holds says whether the caller holds the verb on anything at all; the handler then checks the thing itself.
	Holds func(ctx context.Context, verb string) bool
	// Caller names the authenticated caller for rate limits and idempotency, the same for each of its requests.
	Caller func(ctx context.Context) string
	// Refused reports each refusal by a policy rule. The context carries who was refused, if anybody is known. It must not
	// block. May be nil.
	Refused func(ctx context.Context, rule, detail string)
	Limits  Limits
}

// API is the door for programs. Serve it under /v1/, /problems/ and /openapi.json (see Mount).
type API struct {
	cfg   Config
	mux   *http.ServeMux
	huma  huma.API
	ops   []Op
	next  *Op // being registered: the guard of its pattern
	cross *http.CrossOriginProtection
	rates *Limiter
}

// Op describes one operation.
type Op struct {
	ID      string // "claim-device"
	Method  string
	Path    string // "/v1/claims/{id}"
	Verb    string // what the caller must hold; empty only with Public
	Public  bool   // anybody may call it
	Summary string
	Doc     string // longer text, Markdown
	Stage   string // the room, for grouping
	Status  int    // of success; default 200, or 204 without a body
	MaxBody int64  // bytes; default DefaultMaxBody
	Secret  bool   // the answer holds a secret: it is not kept for a repeated Idempotency-Key
}

// New makes the kit.
func New(cfg Config) *API {
	adoptProblems()
	if len(cfg.TokenKey) == 0 {
		cfg.TokenKey = make([]byte, 32)
		rand.Read(cfg.TokenKey)
	}
	a := &API{cfg: cfg, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), rates: NewLimiter(cfg.Clock, cfg.Limits)}
	h := huma.DefaultConfig(cfg.Title, cfg.Version)
	h.CreateHooks, h.SchemasPath, h.DocsPath, h.OpenAPIPath = nil, "", "", ""
	h.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	h.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "An API token: ot_<id>_<secret>, or the session of a person at a terminal: os_<secret>"}}
	a.huma = humago.New(guarded{a}, h)
	a.mux.HandleFunc("GET /openapi.json", a.openapi)
	a.mux.HandleFunc("GET /problems/{kind}", problemPage)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.Fail(w, r, problem.NotFound("There is no operation %s %s.", r.Method, r.URL.Path).Hint("See /openapi.json."))
	})
	return a
}

// Mount serves the kit on mux.
func (a *API) Mount(mux *http.ServeMux) {
	for _, p := range []string{"/v1/", "/problems/", "/openapi.json"} {
		mux.Handle(p, a)
	}
}

// Operations lists what was registered, in order.
func (a *API) Operations() []Op { return slices.Clone(a.ops) }

// Handle registers an operation with typed input and output. In is a huma struct; Out is usually api.Out or api.List.
func Handle[I, O any](a *API, op Op, h func(context.Context, *I) (*O, error)) {
	a.add(&op)
	defer func() { a.next = nil }()
	huma.Register(a.huma, op.huma(), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// Raw registers an operation that reads and writes bytes itself: uploads, downloads, streams. An error returned before
// the first byte was written becomes a problem.
func Raw(a *API, op Op, h func(w http.ResponseWriter, r *http.Request) error) {
	a.add(&op)
	defer func() { a.next = nil }()
	o := op.huma()
	for _, name := range pathNames(op.Path) {
		o.Parameters = append(o.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	o.Responses = map[string]*huma.Response{strconv.Itoa(cmp.Or(op.Status, http.StatusOK)): {Description: "Bytes"}, "default": {Description: "Error",
		Content: map[string]*huma.MediaType{"application/problem+json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")}}}}
	if op.Method == http.MethodPost || op.Method == http.MethodPut {
		o.RequestBody = &huma.RequestBody{Description: "Bytes", Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	}
	a.huma.OpenAPI().AddOperation(&o)
	guarded{a}.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		if err := h(t, r); err != nil {
			if t.begun {
				a.cfg.Log.ErrorContext(r.Context(), "stream broke", "op", op.ID, "request_id", RequestID(r.Context()), "err", err)
				panic(http.ErrAbortHandler) // the caller must see that it is cut short
			}
			a.Fail(w, r, err)
		}
	})
}

func (a *API) add(op *Op) {
	switch {
	case op.ID == "" || op.Method == "" || op.Path == "":
		panic(fmt.Sprintf("api: operation %q %s %q lacks a name", op.ID, op.Method, op.Path))
	case (op.Verb == "") == !op.Public:
		panic("api: operation " + op.ID + " must declare either Verb or Public")
	case !strings.HasPrefix(op.Path, "/v1/"):
		panic("api: operation " + op.ID + " must lie under /v1/")
	}
	if op.MaxBody == 0 {
		op.MaxBody = DefaultMaxBody
	}
	a.ops = append(a.ops, *op)
	a.next = op
}

func (op Op) huma() huma.Operation {
	o := huma.Operation{OperationID: op.ID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: op.Doc,
		DefaultStatus: op.Status, MaxBodyBytes: op.MaxBody, Extensions: map[string]any{}}
	if op.Stage != "" {
		o.Tags = []string{op.Stage}
	}
	if op.Public {
		o.Extensions["x-public"] = true
	} else {
		o.Extensions["x-verb"] = op.Verb
		o.Security = []map[string][]string{{"token": {}}}
	}
	return o
}

func pathNames(path string) (names []string) {
	for _, part := range strings.Split(path, "/") {
		if n, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(n, "}"), "..."))
		}
	}
	return names
}

// guarded is the mux that huma registers on: each pattern is wrapped in the guard of its operation.
type guarded struct{ a *API }

func (g guarded) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	g.a.mux.Handle(pattern, g.a.guard(*g.a.next, http.HandlerFunc(h)))
}
func (g guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.a.mux.ServeHTTP(w, r) }

func (a *API) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(a.huma.OpenAPI()); err != nil {
		a.cfg.Log.Error("openapi", "err", err)
	}
}
