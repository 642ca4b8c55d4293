package provider

import (
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/ententehq/entente/client"
)

// report adds the error of a call: at the attribute that the member names, if it names one.
func report(d *diag.Diagnostics, summary string, err error) {
	detail := sentence(err.Error())
	if errors.Is(err, client.ErrEtagMismatch) {
		d.AddError(summary+", because somebody else changed it",
			detail+" Nothing was changed. Plan again: the new plan shows what is different now.")
		return
	}
	if denied := (*client.Error)(nil); errors.As(err, &denied) && errors.Is(err, client.ErrDenied) {
		detail += " The provider's identity needs a grant for it: 'entente access grant --help'."
	}
	if errors.Is(err, context.DeadlineExceeded) {
		detail += " A timeouts block in the resource gives it more time."
	}
	if of := (*client.Error)(nil); errors.As(err, &of) && of.Field() != "" {
		parts := strings.Split(of.Field(), ".")
		d.AddAttributeError(path.Root(parts[min(1, len(parts)-1)]), summary, detail)
		return
	}
	d.AddError(summary, detail)
}

// warn adds what a member remarked on a change that it made. It is one warning, since Terraform shows only the first of
// those with one summary.
func warn(d *diag.Diagnostics, called string, warnings []string) {
	if len(warnings) == 0 {
		return
	}
	var lines []string
	for _, w := range warnings {
		lines = append(lines, sentence(w))
	}
	d.AddWarning("The cluster warns about "+called, strings.Join(lines, "\n\n"))
}

// sentence ends a message as Terraform shows it.
func sentence(text string) string {
	if text == "" || strings.HasSuffix(text, ".") {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// toError returns the first error of some diagnostics, or nil.
func toError(d diag.Diagnostics) error {
	for _, one := range d.Errors() {
		return errors.New(one.Summary() + ": " + one.Detail())
	}
	return nil
}
