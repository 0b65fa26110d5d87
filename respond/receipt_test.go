// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/tenant"
)

func keys(t *testing.T, hand *clock.Hand) *seal.Keys {
	t.Helper()
	k, err := seal.Open(filepath.Join(t.TempDir(), "keys"), hand)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestReceiptIsSealedAndConfirmed: a receipt file is kept as it came, no table holds its plain bytes, a second person
// confirms it without typing an id, and another case or tenant does not get it.
func TestReceiptIsSealedAndConfirmed(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		e, err := h.Append(ann, id, SubmissionAttempted, Data{Stage: EarlyWarning, At: h.hand.Now()})
		if err != nil {
			t.Fatal(err)
		}
		file := []byte("%PDF-1.7 <script>alert(1)</script> receipt SRP-4711")
		if _, err := h.StoreReceipt(ann, id, 99, "r.pdf", file); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("a receipt of nothing: %v", err)
		}
		if _, err := h.StoreReceipt(ann, id, e.Seq, "r.pdf", make([]byte, MaxReceipt+1)); !problem.Is(err, problem.KindTooLarge) {
			t.Errorf("a receipt without bounds: %v", err)
		}
		if _, err := h.Append(ann, id, ReceiptStored, Data{Attempt: e.Seq, File: "rct_x", SHA256: strings.Repeat("a", 64)}); problem.Of(err).Rule != "respond.receipt" {
			t.Errorf("a receipt without its file: %v", err)
		}
		r, err := h.StoreReceipt(ann, id, e.Seq, `C:\Users\ann\r.pdf`, file)
		sum := sha256.Sum256(file)
		if err != nil || r.Data.Name != "r.pdf" || r.Data.Size != int64(len(file)) || r.Data.SHA256 != hex.EncodeToString(sum[:]) {
			t.Fatalf("%+v, %v", r, err)
		}
		var sealed []byte
		if err := h.db.QueryRow(t.Context(), `SELECT sealed FROM respond_file WHERE id = $1`, r.Data.File).Scan(&sealed); err != nil || bytes.Contains(sealed, []byte("SRP-4711")) {
			t.Errorf("the receipt lies open in the table: %v", err)
		}
		if name, b, err := h.Receipt(bob, id, r.Data.File); err != nil || name != "r.pdf" || !bytes.Equal(b, file) {
			t.Errorf("%q, %d bytes, %v", name, len(b), err)
		}
		stranger := tenant.WithActor(context.Background(), tenant.Actor{ID: "per_x", Kind: tenant.KindPerson, Tenant: "ten_other", Grants: []tenant.Grant{{Role: tenant.ComplianceOfficer, Tenant: "ten_other"}}})
		if _, _, err := h.Receipt(stranger, id, r.Data.File); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant read the receipt: %v", err)
		}
		if _, err := h.Submitted(stranger, id, e.Seq); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant read the report: %v", err)
		}
		if _, _, err := h.Receipt(ann, h.declared(t), r.Data.File); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("the receipt of one case was handed out for another: %v", err)
		}
		if _, err := h.Append(ann, id, SubmissionAccepted, Data{Attempt: e.Seq}); problem.Of(err).Rule != "respond.second-person" {
			t.Errorf("the submitter confirmed the receipt: %v", err)
		}
		if _, err := h.Append(bob, id, SubmissionAccepted, Data{Attempt: e.Seq}); err != nil {
			t.Fatal(err)
		}
		c, err := h.Case(bob, id)
		if s := c.Submissions[EarlyWarning]; err != nil || s.File != r.Data.File || s.Pack != e.Data.Pack || s.Confirmer != "per_bob" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// TestPackPage walks the page of a pack as a person without scripts does: what is missing, writing, the difference to the
// draft, submitting, the receipt as a file, the second person, and the coordinator.
func TestPackPage(t *testing.T) {
	each(t, func(t *testing.T, h house) {
		id := h.declared(t)
		pages, programs := h.doors(t, ann)
		second, _ := h.doors(t, bob)
		get := func(path string, wants ...string) string {
			t.Helper()
			code, body, _ := do(t, pages, "GET", path, "", "")
			if code != 200 {
				t.Fatalf("%s: %d\n%s", path, code, body)
			}
			for _, want := range wants {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %q:\n%s", path, want, body)
				}
			}
			return body
		}
		post := func(door http.Handler, path string, want int, kv ...string) string {
			t.Helper()
			v := url.Values{}
			for i := 0; i < len(kv); i += 2 {
				v.Set(kv[i], kv[i+1])
			}
			code, body, _ := do(t, door, "POST", path, "application/x-www-form-urlencoded", v.Encode())
			if code != want {
				t.Fatalf("%s: %d, want %d\n%s", path, code, want, body)
			}
			return body
		}
		pack := "/cases/" + id + "/pack"
		get(pack, "Everything that this report asks for is there", "nothing is sent from here", "17 of 255 characters", "draft from the product", "CRA Art. 14(2)(a): required", "CERT-Bund (BSI)", "not the one that was")
		get(pack+"?stage=notification", "things are missing", "General information", "CRA Art. 14(2)(b): as available")
		c, _ := h.Case(ann, id)
		seen := "1"
		post(pages, "/cases/"+id+"/fields", 303, "seen", seen, "field.product", "Sensor <S1>", "was.product", "", "field.title", c.Title, "was.title", (PackField{Value: c.Title}).Was())
		body := get(pack, "Sensor &lt;S1&gt;", "The draft is different now", "Use the draft")
		if c, _ = h.Case(ann, id); len(c.Events) != 2 || len(c.Events[1].Data.Fields) != 1 {
			t.Errorf("what nobody changed was written: %+v", c.Events)
		}
		if strings.Contains(body, "<S1>") {
			t.Error("a value is not escaped")
		}
		post(second, "/cases/"+id+"/fields", 409, "seen", seen, "field.product", "mine", "was.product", "")
		post(pages, "/cases/"+id+"/fields", 303, "reset", "product")
		post(pages, "/cases/"+id+"/submissions", 303, "kind", "submission.attempted", "stage", "early_warning", "at", "2026-11-21T12:00:00Z")
		get(pack, "waits for a second person", "Keep the receipt as a file", "What it said is kept")
		if code, body, _ := do(t, programs, "GET", "/v1/cases/"+id+"/submissions/4", "", ""); code != 200 || !strings.Contains(body, `"stage":"early_warning"`) {
			t.Errorf("%d %s", code, body)
		}

		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		_ = m.WriteField("attempt", "4")
		w, _ := m.CreateFormFile("file", "receipt.html")
		_, _ = w.Write([]byte("<script>alert(1)</script>"))
		_ = m.Close()
		if code, body, _ := do(t, pages, "POST", "/cases/"+id+"/receipts", m.FormDataContentType(), b.String()); code != 303 {
			t.Fatalf("%d %s", code, body)
		}
		body = get(pack, "receipt.html", "/v1/cases/"+id+"/receipts/rct_")
		_, rest, _ := strings.Cut(body, "/receipts/rct_")
		file, _, _ := strings.Cut(rest, `"`)
		r := httptest.NewRequest("GET", "https://iot.example/v1/cases/"+id+"/receipts/rct_"+file, nil)
		rec := httptest.NewRecorder()
		programs.ServeHTTP(rec, r)
		if hd := rec.Header(); rec.Code != 200 || hd.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(hd.Get("Content-Disposition"), "attachment") || !strings.Contains(hd.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("a browser might show the receipt: %d %v", rec.Code, hd)
		}
		post(pages, "/cases/"+id+"/submissions", 403, "kind", "submission.accepted", "attempt", "4")
		post(second, "/cases/"+id+"/submissions", 303, "kind", "submission.accepted", "attempt", "4")
		get(pack, "72-hour notification", "accepted")

		get("/coordinator", "Nobody has confirmed", "All 27 coordinators")
		get("/coordinator?in_union=yes&decisions=DE", "The answers lead to <b>Germany</b>: CERT-Bund (BSI)")
		get("/coordinator?in_union=no", "lead to no Member State yet")
		post(pages, "/coordinator", 403, "in_union", "yes", "decisions", "DE", "state", "FR")
		post(pages, "/coordinator", 303, "in_union", "yes", "decisions", "DE", "state", "DE")
		get("/coordinator", "confirmed")
		if body := get(pack); strings.Contains(body, "not the one that was") {
			t.Error("the case's coordinator is the confirmed one, and the page doubts it")
		}
	})
}
