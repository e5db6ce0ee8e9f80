"""Bundles → what servers serve: promotion, rollback and repair.

In the order of a promotion: ``promotion`` takes the lease of all servers
(``rollout_lease``) and changes one after another (``one_server``). A change writes the
steps (``repository_writer``, ``model_config``, ``native_library``), loads and checks them
(``validation``, ``golden_ids``), and switches (``live_repository``). ``reconcile`` finishes
or undoes what a crash has left. ``new_server`` fills the repository of one that is added.
"""
