package main

import (
	"errors"
	"log/slog"
	"os"

	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
)

// Runs Helm.
func helm() int {
	// As the name of who has written a field, whatever this program is called.
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Error("helm does not start", "error", err)
		return 1
	}
	err = command.Execute()
	var failed helmcmd.CommandError
	switch {
	case errors.As(err, &failed):
		return failed.ExitCode
	case err != nil:
		return 1
	}
	return 0
}
