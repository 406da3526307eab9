"""Drawing that trainings, evaluations and reports share; matplotlib is optional and imported where it is used."""
