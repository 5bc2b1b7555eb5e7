"""The only importer of Ray and Optuna."""
